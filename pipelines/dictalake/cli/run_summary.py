"""What a run did, for people: one table, or one line."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dictalake.observers.progress import format_duration
from dictalake.workflow.run import RunSummary

_WORST = 20


def show_summary(summary: RunSummary, console: Console) -> None:
    """One table: counts, hours, speed, and failures by reason."""
    table = Table(title=f"run {summary.run_id}, fingerprint {summary.fingerprint}", show_header=False)
    table.add_row("recordings found", str(summary.found))
    of_them = f", {summary.skipped_failed} of them failed" if summary.skipped_failed else ""
    table.add_row("done before", f"{summary.skipped}{of_them}")
    if summary.claimed:
        table.add_row("left to other runs", f"{summary.claimed} ({', '.join(summary.others)})")
    if summary.erased:
        table.add_row("erased, left out", str(summary.erased))
    if summary.retried:
        table.add_row("tried again", str(summary.retried))
    if summary.archives:
        table.add_row("archives unpacked", str(summary.archives))
    table.add_row("transcribed", str(summary.ok))
    table.add_row("failed", str(summary.failed))
    for reason, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        table.add_row(f"  {reason}", str(count))
    table.add_row("audio hours", f"{summary.audio_s / 3600:.3f}")
    table.add_row("time", format_duration(summary.wall_s))
    speed = summary.audio_s / summary.wall_s if summary.wall_s else 0.0
    table.add_row("speed", f"{speed:.1f}x real time" if summary.ok + summary.failed else "nothing to do")
    if summary.retries:
        table.add_row("storage requests made again", str(summary.retries))
    if summary.uncovered:
        lost_s = sum(summary.uncovered.values())
        table.add_row("speech without words", f"{len(summary.uncovered)} recordings, {format_duration(lost_s)}")
    console.print(table)
    _show_uncovered(summary.uncovered, console)


def _show_uncovered(uncovered: dict[str, float], console: Console) -> None:
    """The recordings where speech was heard and nothing was written: silent loss, worst first."""
    if not uncovered:
        return
    title = (
        f"speech without words, the worst {_WORST} of {len(uncovered)}" if len(uncovered) > _WORST else "speech without words"
    )
    table = Table("recording_id", "seconds", title=title)
    for recording_id, seconds in sorted(uncovered.items(), key=lambda item: -item[1])[:_WORST]:
        table.add_row(recording_id, f"{seconds:.1f}")
    console.print(table)


def describe(summary: RunSummary) -> str:
    """One line about what a night did; empty when there was nothing to do and nothing was left to others."""
    if not (summary.ok or summary.failed or summary.claimed):
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
    took = format_duration(summary.wall_s)
    return (
        f"run {summary.run_id}: {', '.join(parts)}; {summary.audio_s / 3600:.2f} audio hours in {took}, "
        f"{summary.skipped} of {summary.found} were done before"
    )
