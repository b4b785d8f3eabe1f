"""A table of everything that a run writes: what it can hold of a person, and what an erasure does there.

``erase.sweep`` walks ``PLACES``; ``erasers.ERASERS`` has the step for each folder. A new folder of the lake gets a line here:

- A Delta table whose rows speak of recordings, each by a ``recording_id``, names these columns in ``names``. That is all: an
  erasure removes the rows of recordings that are gone, and the files that held them.
- A folder of another kind gets a step in ``ERASERS``. Without one, and without ``names``, no erasure runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.schema import (
    ACCESSES,
    CORRECTIONS,
    EMBEDDINGS,
    ERASURES,
    FINGERPRINTS,
    PARTITIONS,
    RECHECKS,
    RUNS,
    SUPERSEDED,
    TRANSCRIPTS,
)

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
CORRECTIONS_FOLDER = "corrections"
ACCESSES_FOLDER = "accesses"
FINDINGS_FOLDER = "findings"
EMBEDDINGS_FOLDER = "embeddings"


@dataclass(frozen=True)
class Place:
    """A folder of the lake. ``schema`` and ``partitions`` are those of a Delta table, None and empty for other files.

    ``personal`` says how it can hold something about a person, ``what`` says it for people, and ``erasure`` what becomes of it:

    - ``content``: text, URIs or metadata of recordings, or hashes of patients.
    - ``archive``: the URI of the archive, which names a recording only if the archive is a single object.
    - ``ids``: recording ids with numbers. An id is a hash of URI and version, and reveals neither.
    - ``none``: nothing.

    ``names`` are the columns of a table that hold recording ids: a row without such a recording is removed.
    """

    folder: str
    personal: Literal["content", "archive", "ids", "none"]
    what: str
    erasure: str
    schema: pa.Schema | None = None
    partitions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


PLACES = (
    Place(
        TRANSCRIPTS_FOLDER,
        "content",
        "texts, URIs, DICOM attributes, hashes of patients, columns of your manifest; files that no run committed too",
        "rows and the files that held them are deleted at once; values are taken out of the Delta log",
        TRANSCRIPTS,
        PARTITIONS,
    ),
    Place(
        RUNS_FOLDER,
        "archive",
        "the archive and its keys, which name a recording if the archive is a single object or a glob has no star",
        "archive and configuration of such a run are blanked, old files deleted",
        RUNS,
    ),
    Place(
        ERASURES_FOLDER,
        "none",
        "hashes of what was erased, and receipts in numbers",
        "they stay: they keep it out",
        ERASURES,
    ),
    Place(RECHECKS_FOLDER, "ids", "recording ids and measures", "rows are removed", RECHECKS, names=("recording_id",)),
    Place(FINGERPRINTS_FOLDER, "none", "models, settings and hashes; who promoted a fingerprint", "nothing", FINGERPRINTS),
    Place(
        SUPERSEDED_FOLDER,
        "ids",
        "pairs of recording ids",
        "rows are removed",
        SUPERSEDED,
        names=("recording_id", "superseded_by"),
    ),
    Place(
        CORRECTIONS_FOLDER,
        "content",
        "texts that people corrected, and who did",
        "rows and the files that held them are deleted at once",
        CORRECTIONS,
        names=("recording_id",),
    ),
    Place(
        ACCESSES_FOLDER,
        "ids",
        "which recording ids a person opened, and when",
        "rows are removed",
        ACCESSES,
        names=("recording_id",),
    ),
    Place(
        FINDINGS_FOLDER,
        "content",
        "what a language model found in transcripts, with quotes of them; files that no run committed too",
        "rows and the files that held them are deleted at once",
        FINDINGS,
        PARTITIONS,
        names=("recording_id",),
    ),
    Place(
        EMBEDDINGS_FOLDER,
        "content",
        "recording ids, and vectors of passages, from which words can be guessed",
        "rows and the files that held them are deleted at once",
        EMBEDDINGS,
        names=("recording_id",),
    ),
    Place(
        MANIFESTS_FOLDER,
        "content",
        "URIs and columns of your manifest, of what each run was asked to do",
        "blanked; the recording id keeps its place for a run at work",
    ),
    Place(REPORTS_FOLDER, "content", "lines about recordings, on the pages that runs wrote", "the lines are taken out"),
    Place(
        LINEAGE_FOLDER,
        "archive",
        "the archive or manifest that a run read, in OpenLineage events",
        "the name and the words of an error are blanked",
    ),
    Place(CLAIMS_FOLDER, "none", "which run is at work where, and its counts", "nothing"),
)


@dataclass(frozen=True)
class OutsidePlace:
    """A place outside the lake that can hold something about a person, and who clears it."""

    where: str
    what: str
    erasure: str


OUTSIDE = (
    OutsidePlace(
        "`~/.cache/dictalake/search/` or `--index`",
        "texts, in the index of `dictalake search`",
        "`forget` deletes the index of the user who runs it; others rebuild theirs at their next search; an index in use by "
        "nobody any more, and one in a folder of `--index`, is yours to delete",
    ),
    OutsidePlace("`~/.cache/dictalake/logs/`", "what libraries quote: URIs", "yours, on each machine; the last 20 are kept"),
    OutsidePlace(
        "`dictalake-*` in the folder for temporary files",
        "the listing of the archive, and rows on their way, of a run or query whose machine or process was killed",
        "yours, when nothing is at work",
    ),
    OutsidePlace(
        "Ray's session folder: `dl-*` in `RAY_TMPDIR`, else in the folder for temporary files",
        "sound and texts on their way, of a run that was killed; a cluster that you join has its own, mostly `/tmp/ray`",
        "yours",
    ),
    OutsidePlace("what you wrote elsewhere", "exports, pages, evaluations, metrics pages with texts", "yours"),
    OutsidePlace("a server of `lineage.server`", "the events that runs sent there", "yours"),
    OutsidePlace(
        "the bucket's own past", "versions, soft deletes, backups, uploads in parts that were never finished", "yours"
    ),
    OutsidePlace("the archive", "the recordings themselves", "yours"),
)
