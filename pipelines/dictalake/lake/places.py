"""A table of everything below ``lake.uri``: the folders, what they hold, and what erasure does there.

A new folder of the lake gets a line here. The schema's contract and the cleaning of Delta logs use this table.
``erase.sweep`` lists the steps for manifests, run records and reports; a new folder with content needs a step there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from dictalake.lake.schema import ERASURES, FINGERPRINTS, PARTITIONS, RECHECKS, RUNS, SUPERSEDED, TRANSCRIPTS

TRANSCRIPTS_FOLDER = "transcripts"
RUNS_FOLDER = "runs"
ERASURES_FOLDER = "erasures"
MANIFESTS_FOLDER = "manifests"
REPORTS_FOLDER = "reports"
LINEAGE_FOLDER = "lineage"
CLAIMS_FOLDER = "claims"
RECHECKS_FOLDER = "rechecks"
FINGERPRINTS_FOLDER = "fingerprints"
SUPERSEDED_FOLDER = "superseded"


@dataclass(frozen=True)
class Place:
    """A folder of the lake. ``schema`` and ``partitions`` are those of a Delta table, None and empty for other files.

    ``personal`` says how it can hold something about a person:

    - ``content``: text, URIs or metadata of recordings. ``erase.forget`` and ``erase.sweep`` remove what is erased.
    - ``archive``: the URI of the archive, which names a recording only if the archive is a single object.
    - ``none``: nothing, or hashes alone.
    """

    folder: str
    personal: Literal["content", "archive", "none"]
    schema: pa.Schema | None = None
    partitions: tuple[str, ...] = ()


PLACES = (
    Place(TRANSCRIPTS_FOLDER, "content", TRANSCRIPTS, PARTITIONS),
    Place(RUNS_FOLDER, "content", RUNS),
    Place(ERASURES_FOLDER, "none", ERASURES),
    Place(RECHECKS_FOLDER, "none", RECHECKS),
    Place(FINGERPRINTS_FOLDER, "none", FINGERPRINTS),
    Place(SUPERSEDED_FOLDER, "none", SUPERSEDED),
    Place(MANIFESTS_FOLDER, "content"),
    Place(REPORTS_FOLDER, "content"),
    Place(LINEAGE_FOLDER, "archive"),
    Place(CLAIMS_FOLDER, "none"),
)
