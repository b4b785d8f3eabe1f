"""A transcript as subtitles, as a TextGrid of Praat, and as lines of CTM."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pysubs2
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid

from dictalake.transcript.cues import MOST_CHARACTERS, make_cues

Row = Mapping[str, Any]
_LEAST_S = 0.001  # a word without a length gets this one: Praat has no empty interval


def write_subtitles(row: Row, path: Path, kind: str) -> None:
    """``kind`` is srt or vtt."""
    subtitles = pysubs2.SSAFile()
    for cue in make_cues(row["words"] or ()):
        lines = "\\N".join(textwrap.wrap(_escape(cue.text), MOST_CHARACTERS // 2))
        subtitles.append(pysubs2.SSAEvent(start=_to_ms(cue.start_s), end=_to_ms(cue.end_s), text=lines))
    subtitles.save(str(path), encoding="utf-8", format_=kind)


def _escape(text: str) -> str:
    """Braces would be read as commands of subtitles."""
    return text.replace("{", "(").replace("}", ")").replace("\\", "/")


def _to_ms(seconds: float) -> int:
    return round(seconds * 1000)


def write_textgrid(row: Row, path: Path) -> None:
    """A tier of words for each channel, with what was not spoken as empty intervals."""
    words = row["words"] or ()
    end_s = max([row["duration_s"] or 0.0, _LEAST_S, *(word["end_s"] + _LEAST_S for word in words)])
    grid = Textgrid(0.0, end_s)
    for channel in sorted({word["channel"] for word in words}) or [0]:
        entries = list(_lay_out([word for word in words if word["channel"] == channel]))
        end_s = max([end_s, *(end for _, end, _ in entries)])
        name = "words" if channel == 0 else f"words of channel {channel + 1}"
        grid.addTier(IntervalTier(name, entries, 0.0, end_s), reportingMode="silence")
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True, reportingMode="silence")


def _lay_out(words: Sequence[Row]) -> Iterator[tuple[float, float, str]]:
    """Words one after the other: Praat has no intervals that overlap."""
    before = 0.0
    for word in sorted(words, key=lambda word: (word["start_s"], word["end_s"])):
        start_s = max(word["start_s"], before)
        before = max(word["end_s"], start_s + _LEAST_S)
        yield start_s, before, word["word"]


def write_ctm(row: Row) -> Iterator[str]:
    """A line for each word: recording, channel from 1, start, length, word, confidence."""
    for word in sorted(row["words"] or (), key=lambda word: (word["channel"], word["start_s"])):
        length_s = max(0.0, word["end_s"] - word["start_s"])
        sure = "NA" if word["confidence"] is None else f"{word['confidence']:.3f}"
        text = "_".join(word["word"].split())
        yield f"{row['recording_id']} {word['channel'] + 1} {word['start_s']:.3f} {length_s:.3f} {text} {sure}\n"


# One file for each recording.
FILES: dict[str, Callable[[Row, Path], None]] = {
    "srt": lambda row, path: write_subtitles(row, path, "srt"),
    "vtt": lambda row, path: write_subtitles(row, path, "vtt"),
    "textgrid": write_textgrid,
}
ENDINGS = {"srt": ".srt", "vtt": ".vtt", "textgrid": ".TextGrid"}
