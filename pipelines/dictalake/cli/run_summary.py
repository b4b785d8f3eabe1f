"""What a run did, for people: a list of at most 80 columns, or one line."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table

from dictalake.archive.findings import describe_counts
from dictalake.cli.tables import print_lines
from dictalake.observers.stats import format_duration
from dictalake.transcript.domain import warn_of_conversations
from dictalake.workflow.summary import RunSummary

_WORST = 20
_NAMED = 3  # in one line
_WIDTH = 80


def show_summary(summary: RunSummary, console: Console) -> None:
    """Prints run, model and lake, the counts of objects and of recordings, and failures by reason.

    Ids and the lake's URI stand on lines of their own, which are never cut or wrapped.
    """
    for name, value in (
        ("run", summary.run_id),
        ("fingerprint", summary.fingerprint),
        ("model", summary.model),
        ("lake", summary.lake_uri),
    ):
        if value:
            print_lines(console, f"{name:12} {value}")
    for other in summary.others if summary.claimed else ():
        print_lines(console, f"{'other run':12} {other}")
    console.print(_list_counts(summary), width=min(_WIDTH, console.width))
    if text := _describe_standing(summary):
        command = f"dictalake promote {shlex.quote(summary.lake_uri or 'LAKE')} {summary.fingerprint}"
        console.print(f"{text}: `{command}` does", highlight=False, markup=False, soft_wrap=True)
    _show_worst("seconds of speech without words", summary.uncovered, console)
    _show_worst("seconds of sound that could not be decoded", summary.lost, console)
    if warning := warn_of_conversations(summary.judged, summary.conversations):
        print_lines(console, "", warning)
    if summary.lost:
        question = f'dictalake query {shlex.quote(summary.lake_uri or "LAKE")} "SELECT * FROM incomplete"'
        print_lines(console, f"`{question}` shows more about them")


def _describe_standing(summary: RunSummary) -> str:
    """Empty where the view ``transcripts`` shows the rows of this run, as far as there are any."""
    if summary.standing != "experiment":
        return ""
    return "the view transcripts does not show this fingerprint, since it was not promoted"


def _list_counts(summary: RunSummary) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row("objects in the archive", str(summary.objects))
    of_them = f"with {summary.skipped_failed} failed recordings" if summary.skipped_failed else ""
    table.add_row("  done before", str(summary.skipped), of_them)
    for name, counts in (("left out", summary.left_out), ("folders that could not be read", summary.unread_folders)):
        for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
            table.add_row(f"  {name}: {reason}", str(count))
    rows = (
        ("links to other entries", summary.aliases),
        ("left to other runs", summary.claimed),
        ("erased, left out", summary.erased),
        ("tried again", summary.retried),
        ("archives unpacked", summary.archives),
    )
    for name, count in rows:
        if count:
            table.add_row(f"  {name}", str(count))
    table.add_row("recordings of this run", str(summary.recordings))
    table.add_row("  transcribed", str(summary.ok))
    table.add_row("  failed", str(summary.failed))
    for reason, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        table.add_row(f"    {reason}", str(count))
    table.add_row("audio hours", f"{summary.audio_s / 3600:.3f}")
    speed = summary.audio_s / summary.wall_s if summary.wall_s else 0.0
    table.add_row("time", format_duration(summary.wall_s), f"{speed:.1f}x real time" if summary.recordings else "nothing to do")
    if summary.retries:
        table.add_row("storage requests retried", str(summary.retries))
    if summary.uncovered:
        lost_s = sum(summary.uncovered.values())
        table.add_row("speech without words", str(len(summary.uncovered)), f"recordings, {format_duration(lost_s)}")
    if summary.lost:
        lost_s = sum(summary.lost.values())
        table.add_row("incomplete", str(len(summary.lost)), f"recordings, {format_duration(lost_s)} of sound lost")
    return table


def _show_worst(what: str, seconds_of: dict[str, float], console: Console) -> None:
    """Lists recordings with their seconds, the worst first: loss that nobody would notice."""
    if not seconds_of:
        return
    of_all = f", the worst {_WORST} of {len(seconds_of)}" if len(seconds_of) > _WORST else ""
    print_lines(console, "", f"{what}{of_all}:")
    for recording_id, seconds in _sort_worst(seconds_of)[:_WORST]:
        print_lines(console, f"{seconds:8.1f}  {recording_id}")


def _sort_worst(seconds_of: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds_of.items(), key=lambda item: -item[1])


def describe(summary: RunSummary) -> str:
    """One line about what a night did; empty when there was nothing to do, nothing was left out or left to others, and nobody
    warned."""
    if not (summary.recordings or summary.claimed or summary.unread_folders or summary.left_out):
        if summary.hidden_warnings:
            return f"run {summary.run_id}: nothing to do{_describe_warnings(summary)}"
        return ""
    parts = [f"{summary.ok} transcribed"]
    if summary.failed:
        by_count = sorted(summary.failures.items(), key=lambda item: -item[1])
        parts.append(f"{summary.failed} failed ({', '.join(f'{reason} {count}' for reason, count in by_count)})")
    if summary.retried:
        parts.append(f"{summary.retried} of them tried again")
    if summary.claimed:
        parts.append(f"{summary.claimed} left to {', '.join(summary.others)}")
    if summary.erased:
        parts.append(f"{summary.erased} erased ones left out")
    if summary.unread_folders:
        parts.append(f"folders that could not be read: {describe_counts(summary.unread_folders)}")
    if summary.left_out:
        parts.append(f"entries left out: {describe_counts(summary.left_out)}")
    if summary.lost:
        worst = ", ".join(f"{recording_id} {seconds:.1f} s" for recording_id, seconds in _sort_worst(summary.lost)[:_NAMED])
        more = ", …" if len(summary.lost) > _NAMED else ""
        lost = format_duration(sum(summary.lost.values()))
        parts.append(f"{len(summary.lost)} incomplete with {lost} of sound lost ({worst}{more})")
    if text := _describe_standing(summary):
        parts.append(text)
    took = format_duration(summary.wall_s)
    model = f" with {summary.model}" if summary.model else ""
    if summary.is_synthetic:
        model += " (synthetic voices only, not for patients: take google/medasr, or --config whisper)"
    return (
        f"run {summary.run_id}{model}: {', '.join(parts)}; {summary.audio_s / 3600:.2f} audio hours in {took}, "
        f"{summary.skipped} of {summary.objects} objects were done before{_describe_warnings(summary)}"
    )


def _describe_warnings(summary: RunSummary) -> str:
    count = summary.hidden_warnings
    return f"; {count} warning{'s' if count > 1 else ''} in {summary.log_file}" if count else ""
