"""Promotes a fingerprint, and shows which fingerprints a lake has and what each counts."""

from __future__ import annotations

from dictalake.cli.tables import Column, print_json, print_table, to_records
from dictalake.config.sections import Lake
from dictalake.lake.fingerprints import promote, read_fingerprints
from dictalake.lake.query import connect, find_names
from dictalake.lake.superseded import refresh_superseded

_NAMES = ("fingerprint", "standing", "recordings", "shown", "promoted_at", "promoted_by")
_QUESTION = """
    SELECT fingerprint,
        CASE WHEN (SELECT count(*) FROM promotions) = 0 THEN 'counts' WHEN p.place = 0 THEN 'production'
            WHEN p.place > 0 THEN 'earlier' ELSE 'experiment' END AS standing,
        recordings, coalesce(shown, 0) AS shown, p.promoted_at, p.promoted_by
    FROM (SELECT fingerprint, count(DISTINCT recording_id) AS recordings FROM transcript_rows GROUP BY fingerprint) AS r
    LEFT JOIN (SELECT fingerprint, count(*) AS shown FROM transcripts GROUP BY fingerprint) AS t USING (fingerprint)
    LEFT JOIN promotions AS p USING (fingerprint)
    ORDER BY p.place NULLS LAST, fingerprint
"""


def promote_and_tell(lake: Lake, fingerprint: str) -> None:
    """Raises ConfigError for a fingerprint that the lake does not have, RunError where the lake cannot be reached."""
    before = read_fingerprints(lake).production
    if not promote(lake, fingerprint):
        print(f"{fingerprint} is production already")
        return
    refresh_superseded(lake)  # what counts has changed
    again = f"; `dictalake promote LAKE {before}` goes back" if before else ""
    print(f"{fingerprint} is production now{f', {before} was before' if before else ''}{again}")


def show_promotions(lake: Lake, form: str) -> None:
    """A line for each fingerprint. ``shown`` is how many rows of it the view ``transcripts`` has."""
    with connect(lake.uri or "", lake.storage_options, names=find_names(_QUESTION)) as database:
        rows = database.sql(_QUESTION).fetchall()
    if form == "json":
        print_json(to_records(_NAMES, rows))
        return
    numbers = {"recordings", "shown"}
    columns = [Column(name, name in numbers) for name in _NAMES]
    print_table(columns, [["" if cell is None else _write(cell) for cell in row] for row in rows])


def _write(cell: object) -> str:
    return f"{cell:%Y-%m-%d %H:%M}" if hasattr(cell, "strftime") else str(cell)
