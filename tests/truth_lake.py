"""A lake whose rows are written night by night, for tests of what counts in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dictalake.config.sections import Lake
from dictalake.lake.query import connect, find_names
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import make_recording_id
from tests.lake_rows import make_failed_row, make_row

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)


def make_lake(folder: Path) -> Lake:
    return Lake.model_validate({"uri": str(folder / "lake")})


def name_recording(uri: str, version: int) -> str:
    return make_recording_id(uri, str(version))


def make_version(
    uri: str, version: int = 1, *, day: int = 1, fingerprint: str = A, modified: int | None = None, **changes: Any
) -> dict[str, Any]:
    """A row of ``version`` of the object at ``uri``, which was transcribed on ``day`` and modified on day ``modified``."""
    modified_at = FIRST_DAY + timedelta(days=version if modified is None else modified)
    seen_at = FIRST_DAY + timedelta(days=day)
    recording_id = changes.pop("recording_id", name_recording(uri, version))
    identity = {"fingerprint": fingerprint, "recorded_month": f"{modified_at:%Y-%m}", **changes}
    if identity.get("status") == "failed":
        row = make_failed_row(recording_id, **identity)
        row |= {"source": {"uri": uri, "version": str(version), "modified_at": modified_at}, "provenance": {}}
    else:
        row = make_row(recording_id, **identity)
        row["source"] = row["source"] | {"uri": uri, "version": str(version), "modified_at": modified_at}
    row["provenance"] = row["provenance"] | {"fingerprint": fingerprint, "transcribed_at": seen_at}
    return row


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))


def ask(lake: Lake, question: str) -> list[tuple[Any, ...]]:
    with connect(str(lake.uri), names=find_names(question)) as database:
        return database.sql(question).fetchall()


def show(lake: Lake) -> dict[str, tuple[str, str]]:
    """What the view ``transcripts`` has: URI → version and fingerprint. A URI that is there twice fails."""
    rows = ask(lake, "SELECT source.uri, source.version, fingerprint FROM transcripts")
    assert len({uri for uri, _, _ in rows}) == len(rows), "one row for each current recording"
    return {uri: (version, fingerprint) for uri, version, fingerprint in rows}
