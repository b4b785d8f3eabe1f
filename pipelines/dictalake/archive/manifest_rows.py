"""A row of a manifest, whatever file it stands in: the names of its columns, its values as text, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from dictalake import logs
from dictalake.errors import ConfigError

KEY = "archive.manifest"
URI = "uri"
_LIKELY_NAMES = (
    *("url", "uris", "path", "file", "filename", "file_name", "filepath", "audio", "audio_filepath", "audio_path"),
    "location",
)
_INVISIBLE = " \t\r\n\ufeff\u200b\xa0"


@dataclass(frozen=True)
class ManifestRow:
    """What one line says. ``place`` is ``line 7``, or ``row 7`` of a Parquet file."""

    place: str
    uri: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class BadRow:
    """A line that cannot be used. ``problem`` continues the sentence that ``place`` begins, and quotes nothing of the line;
    ``digest`` is a hash of its content: the corrected line has another one."""

    place: str
    problem: str
    digest: str


@dataclass(frozen=True)
class Line:
    """One line before anything is made of it. ``parse`` gives its row, None where it is empty."""

    place: str
    content: bytes
    parse: Callable[[], ManifestRow | BadRow | None]


class Notes:
    """What people should know about a manifest whose rows could be read nevertheless: one warning a kind."""

    def __init__(self) -> None:
        self.not_utf8, self.first_place = 0, ""
        self.left_out: list[int] = []  # numbers of columns

    def add_not_utf8(self, place: str) -> None:
        self.not_utf8 += 1
        self.first_place = self.first_place or place

    def warn(self) -> None:
        if self.not_utf8:
            what = "one line is" if self.not_utf8 == 1 else f"{self.not_utf8} lines are"
            _warn(
                f"{what} not UTF-8 in other columns than `uri` (first: {self.first_place}); these were read as Windows-1252: "
                "look at the metadata, or save the file as CSV in UTF-8"
            )
        if self.left_out:
            one = len(self.left_out) == 1
            _warn(
                f"{'column' if one else 'columns'} {_enumerate(self.left_out)} {'holds' if one else 'hold'} bytes, not text, "
                f"and {'is' if one else 'are'} left out; write text as strings to keep it as metadata"
            )


def _warn(line: str) -> None:
    logs.log_event("manifest", f"{KEY}: {line}", level=logs.WARNING)


def is_uri_column(name: str) -> bool:
    return name.strip(_INVISIBLE).casefold() == URI


def name_columns(names: Sequence[str]) -> list[str]:
    """``names`` as the metadata has them: without blanks around, each once; the column of the URIs is ``uri``.

    A column without a name is ``column_3``, a second ``note`` is ``note_2``. Raises ConfigError unless one column is ``uri``.
    """
    found = [number for number, name in enumerate(names, 1) if is_uri_column(name)]
    if len(found) > 1:
        raise ConfigError(
            f"{KEY}: columns {_enumerate(found)} are all called `uri` (capitals and blanks do not count); "
            "keep one of them and rename the others"
        )
    if not found:
        raise explain_no_uri(names)
    taken, result = {URI}, []
    for number, name in enumerate(names, 1):
        if number == found[0]:
            result.append(URI)
            continue
        plain = clean_name(name) or f"column_{number}"
        unique, copies = plain, 1
        while unique in taken:
            copies += 1
            unique = f"{plain}_{copies}"
        taken.add(unique)
        result.append(unique)
    return result


def explain_no_uri(names: Sequence[str]) -> ConfigError:
    # A file without a header shows data in its first line, and data may be a patient's: the names are not repeated.
    likely = next((name for name in map(clean_name, names) if name.lower() in _LIKELY_NAMES), None)
    hint = f"rename the column `{likely}` to `uri`" if likely else "the first line must name the columns"
    return ConfigError(f"{KEY}: none of its {len(names)} columns is called `uri`; {hint}")


def clean_name(name: str) -> str:
    return make_text(name)[0].replace("\0", "").strip(_INVISIBLE)


def make_row(place: str, fields: Iterable[tuple[str, Any]], content: bytes, notes: Notes) -> ManifestRow | BadRow | None:
    """The row of ``fields`` (name and value; null, NaN and an empty text are an absent key); None where it is empty.

    ``content`` is the line as the file has it. A URI that is not Unicode makes a bad row, as it may name another object; other
    values are then read as Windows-1252.
    """
    uri, metadata, is_doubtful = "", {}, False
    for name, value in fields:
        if value is None or value == "" or value != value:
            continue
        if name == URI and not isinstance(value, str | bytes):
            return make_bad_row(place, "has a uri that is not text", content)
        text, is_unicode = make_text(value)
        if "\0" in text:
            return make_bad_row(place, "holds a NUL byte", content)
        if name != URI:
            metadata[name] = text
            is_doubtful |= not is_unicode
        elif not is_unicode:
            return make_bad_row(place, "has a uri that is not UTF-8; save the file as CSV in UTF-8, or as Parquet", content)
        else:
            uri = text.strip(_INVISIBLE)
    if not uri:
        is_empty = not any(text.strip() for text in metadata.values())
        return None if is_empty else make_bad_row(place, "has no uri", content)
    if is_doubtful:
        notes.add_not_utf8(place)
    return ManifestRow(place, uri, metadata)


def make_bad_row(place: str, problem: str, content: bytes) -> BadRow:
    return BadRow(place, problem, blake2b(content, digest_size=8).hexdigest())


def make_text(value: Any) -> tuple[str, bool]:
    """``value`` as text, and whether it was Unicode. For other bytes, in a text as surrogates, Windows-1252 is the guess."""
    if isinstance(value, str):
        if value.isascii():
            return value, True
        try:
            value = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a pair, as JSON can write it
            return value.encode("utf-8", "replace").decode(), False
    if not isinstance(value, bytes):
        return str(value), True
    try:
        return value.decode("utf-8"), True
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace"), False


def _enumerate(numbers: Sequence[int]) -> str:
    texts = [str(number) for number in numbers]
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
