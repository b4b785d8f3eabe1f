"""Anyone's texts as a system of ``dictalake evaluate``: a file that names recordings and says what was heard in each.

========  ==============================================================================================================
CSV       a column ``uri`` (or ``recording``, ``file``, ``id``) and one ``text`` (or ``hypothesis``, ``transcript``)
JSONL     an object a line, with the same names
STM       NIST: ``FILE CHANNEL SPEAKER BEGIN END [<LABELS>] WORDS``; the segments of a file are joined in order of time
CTM       NIST: ``FILE CHANNEL BEGIN DURATION WORD [CONFIDENCE]``; of alternatives the first is taken
========  ==============================================================================================================

A name is that of a recording if it is its URI, or the end of it, with or without the ending of the file: ``ct/1.wav`` and
``1`` name ``gs://archive/ct/1.wav`` where nothing else ends so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dictalake.errors import ConfigError
from dictalake.evaluation.systems import SystemOutput
from dictalake.records import Recording

NO_HYPOTHESIS = "no_hypothesis"
_NAMES = ("uri", "recording", "file", "id", "audio")
_TEXTS = ("text", "hypothesis", "transcript", "prediction")
_ENDINGS = {".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".stm": "STM", ".ctm": "CTM"}
_COMMENT = ";;"


@dataclass(frozen=True)
class Imported:
    """Outputs by recording id; how many recordings the file lacks; and how many of its names are of no recording."""

    outputs: Mapping[str, SystemOutput]
    missing: int
    unknown: int


def import_hypotheses(path: Path, recordings: Sequence[Recording]) -> Imported:
    """The texts of a file for these recordings; one that it lacks counts as failed. Raises ConfigError."""
    texts = read_hypotheses(path)
    found = dict(_join_names(path, texts, recordings))
    lacking = SystemOutput(reason=NO_HYPOTHESIS, detail="the file has no text of this recording")
    outputs = {
        one.recording_id: SystemOutput(texts[found[one.recording_id]], texts[found[one.recording_id]])
        if one.recording_id in found
        else lacking
        for one in recordings
    }
    return Imported(outputs, len(recordings) - len(found), len(texts) - len(set(found.values())))


def _join_names(path: Path, texts: Mapping[str, str], recordings: Sequence[Recording]) -> Iterator[tuple[str, str]]:
    """(recording id, name in the file). Raises ConfigError where a name fits several recordings, or two names one."""
    by_end: dict[str, set[str]] = {}
    for recording in recordings:
        for end in _list_ends(recording.uri):
            by_end.setdefault(end, set()).add(recording.recording_id)
    named: dict[str, str] = {}
    for place, name in enumerate(texts, 1):
        ids = by_end.get(name.removeprefix("./"), set())
        if len(ids) > 1:
            raise ConfigError(f"{path}: the name of text {place} fits {len(ids)} recordings; give more of its path")
        for recording_id in ids:
            if recording_id in named:
                raise ConfigError(f"{path}: text {place} is the second one of a recording; leave one of them out")
            named[recording_id] = name
            yield recording_id, name


def _list_ends(uri: str) -> Iterator[str]:
    """The URI and its ends from each slash on, each with and without the ending of the file."""
    rest = uri
    while rest:
        yield rest
        folder, slash, name = rest.rpartition("/")
        stem, dot, _ = name.rpartition(".")
        if dot and stem:
            yield f"{folder}{slash}{stem}"
        _, slash, rest = rest.partition("/")
        rest = rest if slash else ""


def read_hypotheses(path: Path) -> dict[str, str]:
    """Name → text, in the order of the file. Raises ConfigError that names the line; it quotes nothing."""
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: the name of a file of texts must end in {', '.join(_ENDINGS)}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
    texts = dict(_READERS[kind](path, content))
    if not texts:
        raise ConfigError(f"{path}: there is no text in it")
    return texts


def _read_csv(path: Path, content: str) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(content))
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    name, text = _find_keys(path, columns)
    try:
        yield from _without_repeats(path, ((reader.line_num, row[name] or "", row[text] or "") for row in reader))
    except csv.Error:  # a field of more than 128 KiB, mostly: a quotation mark that does not end
        raise ConfigError(f"{path}, line {reader.line_num + 1}: is no CSV; does a quotation mark not end?") from None


def _read_json_lines(path: Path, content: str) -> Iterator[tuple[str, str]]:
    def read() -> Iterator[tuple[int, str, str]]:
        for place, line in enumerate(content.split("\n"), 1):  # not splitlines: JSON may hold U+2028 and others
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise ConfigError(f"{path}, line {place}: is no JSON") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {place}: is no JSON object")
            name, text = _find_keys(path, list(row), place)
            if not (isinstance(row[name], str) and isinstance(row[text] or "", str)):
                raise ConfigError(f"{path}, line {place}: {name} and {text} must be texts")
            yield place, row[name], row[text] or ""

    yield from _without_repeats(path, read())


def _find_keys(path: Path, columns: Sequence[str], line: int | None = None) -> tuple[str, str]:
    name, text = (next((key for key in keys if key in columns), None) for keys in (_NAMES, _TEXTS))
    if name is None or text is None:
        where = f"{path}{f', line {line}' if line else ''}"
        raise ConfigError(f"{where}: it needs one of {', '.join(_NAMES)} and one of {', '.join(_TEXTS)}")
    return name, text


def _without_repeats(path: Path, rows: Iterator[tuple[int, str, str]]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for line, name, text in rows:
        name = name.strip()
        if not name:
            raise ConfigError(f"{path}, line {line}: no recording is named")
        if name in seen:
            raise ConfigError(f"{path}, line {line}: the second text of a recording; leave one of them out")
        seen.add(name)
        yield name, text


def _read_stm(path: Path, content: str) -> Iterator[tuple[str, str]]:
    segments: dict[str, list[tuple[float, str]]] = {}
    for place, parts in _list_fields(content, 5):
        if len(parts) < 5:
            raise ConfigError(f"{path}, line {place}: a line of STM is FILE CHANNEL SPEAKER BEGIN END WORDS")
        words = parts[5] if len(parts) > 5 else ""
        if words.startswith("<"):
            words = words.partition(">")[2].strip()
        segments.setdefault(parts[0], []).append((_read_time(path, place, parts[3]), words))
    yield from _join_in_time(segments)


def _read_ctm(path: Path, content: str) -> Iterator[tuple[str, str]]:
    words: dict[str, list[tuple[float, str]]] = {}
    is_left_out = False
    for place, parts in _list_fields(content, 5):
        if len(parts) < 5:
            raise ConfigError(f"{path}, line {place}: a line of CTM is FILE CHANNEL BEGIN DURATION WORD")
        word = parts[4].upper()
        if word in ("<ALT_BEGIN>", "<ALT>", "<ALT_END>"):
            is_left_out = word == "<ALT>"
        elif not is_left_out and word != "@":
            words.setdefault(parts[0], []).append((_read_time(path, place, parts[2]), parts[4]))
    yield from _join_in_time(words)


def _list_fields(content: str, most: int) -> Iterator[tuple[int, list[str]]]:
    for place, line in enumerate(content.split("\n"), 1):
        if line.strip() and not line.startswith(_COMMENT):
            yield place, line.split(maxsplit=most)


def _read_time(path: Path, place: int, text: str) -> float:
    try:
        return 0.0 if text == "*" else float(text)
    except ValueError:
        raise ConfigError(f"{path}, line {place}: a time is no number of seconds") from None


def _join_in_time(parts: Mapping[str, list[tuple[float, str]]]) -> Iterator[tuple[str, str]]:
    for name, timed in parts.items():
        yield name, " ".join(text for _, text in sorted(timed, key=lambda one: one[0]) if text)


_READERS = {"CSV": _read_csv, "JSON lines": _read_json_lines, "STM": _read_stm, "CTM": _read_ctm}
