"""Frames of FFmpeg are gathered to blocks, whatever their channels are called."""

from __future__ import annotations

import av
import numpy as np

from dictalake.audio.formats.pieces import Pieces


def make_frame(layout: str, value: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.full((1, 200), value, np.int16), format="s16", layout=layout)
    frame.sample_rate = 8000
    return frame


def test_sound_goes_on_where_a_codec_gives_its_channels_another_name() -> None:
    pieces, blocks = Pieces(), []
    for layout, value in (("stereo", 8192), ("downmix", 16_384)):
        pieces.add(make_frame(layout, value))
        blocks += [block for _, block in pieces.take()]
    assert [(block.shape, block[0, 0]) for block in blocks] == [((2, 100), 0.25), ((2, 100), 0.5)]
