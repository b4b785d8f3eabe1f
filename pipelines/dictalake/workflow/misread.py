"""Good rows of headerless files that were read otherwise than the configuration says today.

Nothing in such a file says how it is coded, so ``archive.headerless`` and ``archive.vox_rate_hz`` do. They belong to a row's
input and not to the fingerprint: a change concerns the rows of those files alone. ``backfill --retry headerless`` makes them
again, as the next attempt.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from dictalake.config.headerless import HEADERLESS_CONTAINERS, STORED_CODECS
from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.lake.delta import has_table
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.rechecks import LOST, find_lost
from dictalake.lake.storage import open_storage
from dictalake.records import find_ending
from dictalake.workflow.worklist import Retry

_BATCH = 10_000
_NEWEST = """
    SELECT recording_id, attempt, source.uri, source.codec, source.sample_rate_hz, source.channels
    FROM (
        SELECT recording_id, attempt, status, source FROM transcript_rows WHERE fingerprint = ?
        QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY attempt DESC) = 1
    ) AS newest
    WHERE status = 'ok' AND list_contains(?, source.container)
"""


def find_misread(config: Config, fingerprint: str) -> pa.Table:
    """The rows (schema rechecks.LOST). Those of an ending of which the configuration says nothing stay. Raises RunError."""
    ids, attempts = list[str](), list[int]()
    try:
        with connect(str(config.lake.uri), config.lake.storage_options, names=()) as lake:
            lake.execute(_NEWEST, [fingerprint, list(HEADERLESS_CONTAINERS)])
            while rows := lake.fetchmany(_BATCH):
                for recording_id, attempt, uri, *was in rows:
                    entry = config.archive.find_headerless(find_ending(uri))
                    if entry is not None and was != [STORED_CODECS[entry.codec], entry.rate_hz, entry.channels]:
                        ids.append(recording_id)
                        attempts.append(attempt)
    except (duckdb.Error, OSError, pa.ArrowException) as error:  # their messages may quote paths
        raise RunError(f"cannot read the lake ({type(error).__name__}); run the same command again") from None
    return pa.table([ids, attempts], schema=LOST)


def find_again(config: Config, fingerprint: str, retry: Retry | None) -> pa.Table | None:
    """The good rows that ``retry`` wants to be made again (schema rechecks.LOST); None for none. Raises RunError."""
    wanted = []
    if retry is not None and retry.lost:
        wanted.append(find_lost(config.lake, fingerprint))
    if retry is not None and retry.misread and has_table(open_storage(config.lake, TRANSCRIPTS_FOLDER)):
        wanted.append(find_misread(config, fingerprint))
    return pa.concat_tables(wanted) if wanted else None
