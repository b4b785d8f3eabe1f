"""Finds words in the transcripts of a lake, and shows where they stand.

    dictalake search --lake.uri gs://lake/speech 'pneumothorax AND NOT "no pneumothorax"'
    dictalake search --lake.uri gs://lake/speech 'specialty:cardiology AND stenosis' --limit 50 --format json

Plain words (any of them), "phrases", AND, OR, NOT, parentheses; recorded_month:2026-03, specialty:… and recording_id:… narrow
it. Words are found in all their forms (fracture finds fractures). The index lies in --index, by default in this user's cache
folder, and is brought up to the lake before each search: what was added is found, what was replaced or erased is not. It holds
transcripts, which are patient data.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dictalake.cli.options import make_parser, parse, read_config
from dictalake.cli.query import split_sql
from dictalake.errors import ConfigError
from dictalake.lake.search import Hit, TextIndex

_MARKS = ("«", "»")


def main(argv: list[str] | None = None) -> int:
    words, options = split_sql(sys.argv[1:] if argv is None else argv)
    parser = make_parser("search", __doc__ or "")
    parser.usage = "dictalake search --lake.uri LAKE [options] 'WORDS'"
    parser.add_argument("--limit", type=int, default=10, help="how many transcripts are shown at most; default 10")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--index", type=Path, help="folder of the index; default: below this user's cache folder")
    arguments, overrides = parse(parser, options)
    lake = read_config(arguments, overrides).lake
    if lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. --lake.uri ./lake")
    if not words:
        raise ConfigError("give the words to find in quotation marks, dictalake search 'left wrist'")
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: must be 1 or more")
    index = TextIndex(lake, arguments.index or default_folder(lake.uri))
    refreshed = index.refresh()
    if refreshed.added or refreshed.removed:
        print(f"index: {refreshed.added} transcripts taken in, {refreshed.removed} taken out", file=sys.stderr)
    WRITERS[arguments.format](index.search(words, arguments.limit))
    return 0


def default_folder(uri: str) -> Path:
    """A folder of its own for each lake; paths are told apart from where the command runs."""
    place = uri if "://" in uri else str(Path(uri).absolute())
    return user_cache_path("dictalake") / "search" / blake2b(place.encode(), digest_size=8).hexdigest()


def show(hits: Sequence[Hit]) -> None:
    console = Console()
    table = Table("recording_id", "month", "specialty", "score", "where", title=f"{len(hits)} transcripts")
    for hit in hits:
        styled = Text.assemble(*((text, "bold red" if is_hit else "") for text, is_hit in hit.snippet))
        where = styled if console.is_terminal else Text(mark(hit))
        table.add_row(hit.recording_id, hit.recorded_month, hit.specialty or "", f"{hit.score:.2f}", where)
    (console if console.is_terminal else Console(width=max(console.width, 160))).print(table)


def write_csv(hits: Sequence[Hit]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("recording_id", "recorded_month", "specialty", "score", "snippet"))
    writer.writerows((h.recording_id, h.recorded_month, h.specialty, round(h.score, 4), mark(h)) for h in hits)


def write_json(hits: Sequence[Hit]) -> None:
    json.dump([asdict(hit) | {"snippet": mark(hit)} for hit in hits], sys.stdout, indent=1, ensure_ascii=False)
    print()


def mark(hit: Hit) -> str:
    """The snippet with «what was asked for»."""
    return "".join(text.join(_MARKS) if is_hit else text for text, is_hit in hit.snippet)


WRITERS = {"table": show, "csv": write_csv, "json": write_json}


if __name__ == "__main__":
    sys.exit(main())
