"""Transcribes the embedded demo archive, greedy and with the language model, and shows what came out.

    dictalake demo --lake.uri ./demo-lake

Two of its files are broken on purpose and have no reference; it ends with 0 when exactly those failed, else with 3. Run
again, it reads the rows from the lake. Every configuration key but those of the archive can be given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dictalake.cli.options import make_parser, parse, read_config
from dictalake.config.sections import Archive, Config
from dictalake.errors import ConfigError
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.systems import (
    REFERENCE,
    SystemOutput,
    Transcripts,
    make_systems,
    make_utterances,
    read_references,
    run_systems,
)
from dictalake.evaluation.utterances import relative_improvement, score
from dictalake.evaluation.word_errors import ErrorCount, count_errors
from dictalake.lake.query import open_lake
from dictalake.observers.progress import format_duration
from dictalake.records import Recording

MANIFEST = "embedded:demo-archive/references.csv"
LAKE = "./demo-lake"
SYSTEMS = ("greedy", "lm")
_SHORTEST_TEXT = 20


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = parse(make_parser("demo", __doc__ or ""), argv)
    if any(key.startswith("archive.") for key, _ in overrides):
        raise ConfigError("the demo reads its own archive; for another one use dictalake backfill or dictalake evaluate")
    config = read_config(arguments, overrides, default="demo")
    lake = config.lake.model_copy(update={"uri": config.lake.uri or LAKE})
    config = config.model_copy(update={"archive": Archive.model_validate({"manifest": MANIFEST}), "lake": lake})

    started = time.monotonic()
    recordings = read_references(config.archive)
    transcripts = run_systems(make_systems(config, list(SYSTEMS), ()), recordings)
    took_s = time.monotonic() - started

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 140))
    console.print(make_table(recordings, transcripts, console.width))
    _show_totals(recordings, transcripts, console)
    _show_lake(config, took_s, console)
    return 0 if failed_as_intended(recordings, transcripts) else 3


def make_table(recordings: Sequence[Recording], transcripts: Transcripts, width: int) -> Table:
    """One row per file; the text is the language model's, shortened so that the table is ``width`` characters wide."""
    rows = []
    for recording in recordings:
        heard = {system: transcripts[system][recording.recording_id] for system in SYSTEMS}
        failed = next((h for h in heard.values() if h.reason), None)
        name = recording.uri.split("/recordings/", 1)[-1]
        text = " ".join(((failed.detail if failed else heard["lm"].text) or "").split())
        rates = [_rate(recording, heard[system]) for system in SYSTEMS]
        rows.append([name, (failed.reason if failed else None) or "ok", text, *rates])

    table = Table(title="demo archive")
    for header in ("file", "status", "text"):
        table.add_column(header, no_wrap=True)
    for header in ("WER greedy", "WER LM"):
        table.add_column(header, justify="right")
    borders = 3 * len(table.columns) + 1
    others = sum(
        max(len(str(column.header)), *(len(row[i]) for row in rows)) for i, column in enumerate(table.columns) if i != 2
    )
    text_width = max(_SHORTEST_TEXT, width - borders - others)
    for row in rows:
        text = row[2] if len(row[2]) <= text_width else row[2][: text_width - 1] + "…"
        table.add_row(*(escape(cell) for cell in [*row[:2], text, *row[3:]]))
    return table


def _rate(recording: Recording, heard: SystemOutput) -> str:
    if REFERENCE not in recording.metadata:
        return ""
    pair = (normalise_medasr(recording.metadata[REFERENCE]), normalise_medasr(heard.text_raw or ""))
    return f"{100 * count_errors([pair]).rate:.1f}"


def failed_as_intended(recordings: Sequence[Recording], transcripts: Transcripts) -> bool:
    """Whether with every system exactly the recordings without a reference failed."""
    intended = {recording.recording_id for recording in recordings if REFERENCE not in recording.metadata}
    return all(
        {recording_id for recording_id, heard in of_system.items() if heard.reason} == intended
        for of_system in transcripts.values()
    )


def _show_totals(recordings: Sequence[Recording], transcripts: Transcripts, console: Console) -> None:
    totals: Mapping[str, ErrorCount] = {
        system: score(make_utterances(recordings, heard), normalise_medasr)[-1].errors for system, heard in transcripts.items()
    }
    for system, name in (("greedy", "greedy"), ("lm", "with LM")):
        errors = totals[system]
        console.print(
            f"{name:8} WER {100 * errors.rate:5.2f} % over {errors.words} words ({errors.substitutions} substituted, "
            f"{errors.deletions} deleted, {errors.insertions} inserted)",
            highlight=False,
        )
    better = relative_improvement(totals["greedy"], totals["lm"])
    if better is not None:
        console.print(f"the language model: {100 * better:+.1f} % relative improvement", highlight=False)


def _show_lake(config: Config, took_s: float, console: Console) -> None:
    assert config.lake.uri is not None
    rows = open_lake(config.lake.uri, config.lake.storage_options).count_rows()
    console.print(f"{rows} rows in the lake {config.lake.uri}; took {format_duration(took_s)}", highlight=False)
    console.print("\nto query it from Python:\n", highlight=False)
    for line in (
        "import duckdb; from dictalake.lake.query import open_lake",
        f"transcripts = open_lake({config.lake.uri!r})",
        'duckdb.sql("SELECT fingerprint, status, count(*), avg(confidence) FROM transcripts GROUP BY ALL").show()',
    ):
        console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
