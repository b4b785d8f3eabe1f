"""Known speech in every container and codec of docs/formats.md, through the embedded model: the same words come out.

The waveforms are compared in ``tests/unit/audio/formats/test_formats.py``; here it is what they are read for.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import jiwer
import pyarrow as pa
import pytest
import soundfile

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Config
from dictalake.workflow import columns
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.decode import Decode
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group
from tests.unit.audio.formats.test_formats import EXACT, LOSSY, speech_at, with_soundfile

SAID = "no acute fracture of the left wrist"  # and the beginning of another word, where the fixture is cut
LOSSY_ERRORS = 0.25  # of eight words two: the telephone's codecs take away sounds that the small model needs


def make_vox() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech_at(8_000), 8_000, format="RAW", subtype="VOX_ADPCM")
    return buffer.getvalue()


def make_voice(interpretation: str, subtype: str, rate_hz: int) -> bytes:
    """A DICOM audio object."""
    payload = encode(speech_at(rate_hz), rate_hz, "RAW", subtype)
    return make_dicom(make_group(payload, interpretation, len(speech_at(rate_hz)), SamplingFrequency=str(rate_hz)))


FILES: dict[str, Callable[[], bytes]] = {
    **{f"{container}-{subtype}".lower(): functools.partial(with_soundfile, container, subtype) for container, subtype in EXACT},
    **{name: make for name, (make, *_) in LOSSY.items()},
    "vox": make_vox,
    "dicom-mulaw": functools.partial(make_voice, "MB", "ULAW", 8_000),
    "dicom-alaw": functools.partial(make_voice, "AB", "ALAW", 8_000),
    "dicom-ub": functools.partial(make_voice, "UB", "PCM_U8", 8_000),
    "dicom-ss": functools.partial(make_voice, "SS", "PCM_16", 16_000),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of the format → the recognised words."""
    folder = tmp_path_factory.mktemp("formats")
    for name, make in FILES.items():
        (folder / f"{name}.{'vox' if name == 'vox' else 'bin'}").write_bytes(make())
    config = Config.model_validate(
        {"archive": {"uri": str(folder), "vox_rate_hz": 8_000}, "acoustic": {"device": "cpu", "dtype": "float32"}}
    )
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    loaded = pa.concat_tables(Load(config)(columns.recordings_to_table(list(list_recordings(config.archive)))))
    decoded = Decode(config, vocabulary)(Emit(config, vocabulary, threads=2)(loaded))
    found = {}
    for row in decoded.to_pylist():
        assert row["error"] is None, row["error"]
        pieces = row["hypotheses"][0]["pieces"]
        found[Path(row["uri"]).stem] = "".join(pieces).replace("▁", " ").strip()
    return found


def test_the_speech_of_the_fixtures_is_heard(texts: dict[str, str]) -> None:
    assert texts["wav-pcm_16"].startswith(SAID)


@pytest.mark.parametrize("name", FILES)
def test_the_same_words_are_heard_in_every_format(texts: dict[str, str], name: str) -> None:
    original = texts["wav-pcm_16"]
    if name in LOSSY or name in ("vox", "dicom-mulaw", "dicom-alaw", "dicom-ub"):
        assert jiwer.wer(original, texts[name]) <= LOSSY_ERRORS
    else:
        assert texts[name] == original
