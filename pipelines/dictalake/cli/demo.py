"""Runs the embedded demo archive through two systems, and shows what came out."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from dictalake.cli.tables import Column, print_json, print_lines, print_table, to_records
from dictalake.config.sections import Archive, Config, Lake
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
from dictalake.lake.fingerprints import promote
from dictalake.lake.query import connect, open_lake
from dictalake.lake.superseded import refresh_superseded
from dictalake.observers.progress import format_duration
from dictalake.records import Recording

MANIFEST = "embedded:demo-archive/references.csv"
LAKE = "./demo-lake"
SYSTEMS = ("greedy", "lm")
COLUMNS = ("file", "status", "text", "WER greedy", "WER LM")
_SHORTEST_TEXT = 20


def show_demo(config: Config, form: str) -> int:
    """Transcribes with ``greedy`` and with the language model; the exit code."""
    lake = config.lake.model_copy(update={"uri": config.lake.uri or LAKE})
    config = config.model_copy(update={"archive": Archive.model_validate({"manifest": MANIFEST}), "lake": lake})
    started = time.monotonic()
    recordings = read_references(config.archive)
    transcripts = run_systems(make_systems(config, list(SYSTEMS), ()), recordings)
    _promote_last(lake)
    took_s = time.monotonic() - started
    if form == "json":
        print_json(to_records(COLUMNS, make_rows(recordings, transcripts)))
    else:
        console = Console()
        show_table(make_rows(recordings, transcripts), console)
        _show_totals(recordings, transcripts, console)
        _show_lake(config, took_s, console)
    return 0 if failed_as_intended(recordings, transcripts) else 3


def _promote_last(lake: Lake) -> None:
    """Has the view ``transcripts`` show what the language model helped to write, not the greedy system that ran first."""
    with connect(lake.uri or "", lake.storage_options, names=("runs",)) as database:
        newest = database.sql("SELECT fingerprint FROM runs ORDER BY started_at DESC LIMIT 1").fetchall()
    promote(lake, newest[0][0])
    refresh_superseded(lake)


def make_rows(recordings: Sequence[Recording], transcripts: Transcripts) -> list[list[str]]:
    """One row a file, of ``COLUMNS``; the text is the language model's."""
    rows = []
    for recording in recordings:
        heard = {system: transcripts[system][recording.recording_id] for system in SYSTEMS}
        failed = next((h for h in heard.values() if h.reason), None)
        name = recording.uri.split("/recordings/", 1)[-1]
        text = " ".join(((failed.detail if failed else heard["lm"].text) or "").split())
        rates = [_rate(recording, heard[system]) for system in SYSTEMS]
        rows.append([name, (failed.reason if failed else None) or "ok", text, *rates])
    return rows


def show_table(rows: Sequence[Sequence[str]], console: Console) -> None:
    """Only the beginning of each text, so that a row is one line; of a failed recording the reason stands there."""
    shown = [(name, text if status == "ok" else f"{status}: {text}", *rates) for name, status, text, *rates in rows]
    columns = [Column("file"), Column("text"), Column("greedy", is_number=True), Column("LM", is_number=True)]
    others = sum(max(len(columns[i].name), *(len(row[i]) for row in shown)) for i in range(len(columns)) if i != 1)
    room = max(_SHORTEST_TEXT, console.width - others - 3 * len(columns) - 1)
    short = [(name, text if len(text) <= room else f"{text[: room - 1]}…", *rates) for name, text, *rates in shown]
    print_table(columns, short, title="demo archive: texts with the language model; word errors in %", console=console)


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
        print_lines(
            console,
            f"{name:8} WER {100 * errors.rate:5.2f} % over {errors.words} words ({errors.substitutions} substituted, "
            f"{errors.deletions} deleted, {errors.insertions} inserted)",
        )
    better = relative_improvement(totals["greedy"], totals["lm"])
    if better is not None:
        print_lines(console, f"the language model: {100 * better:+.1f} % relative improvement")


def _show_lake(config: Config, took_s: float, console: Console) -> None:
    assert config.lake.uri is not None
    rows = open_lake(config.lake.uri, config.lake.storage_options).count_rows()
    print_lines(console, f"{rows} rows in the lake {config.lake.uri}; took {format_duration(took_s)}")
    place = shlex.quote(config.lake.uri)
    print_lines(console, "", "ask it a question:", "")
    question = "SELECT fingerprint, status, count(*), avg(confidence) FROM history GROUP BY ALL"
    print_lines(console, f'    dictalake query {place} "{question}"')
