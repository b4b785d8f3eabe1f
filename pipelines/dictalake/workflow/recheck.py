"""Reads recordings again, without the model, and says of which rows sound is missing.

The loader is no part of the fingerprint: a run never does again what an older loader read worse than today's would. So each
good row of an older loader is compared with what ``load_recording`` gives today, and what is found is recorded in the lake
(``lake/rechecks.py``). What is recorded is not read again, so the same command resumes where it was stopped.

Threads fetch; the child processes of the AudioLoader's sandbox decode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from dictalake.archive.descriptors import find_sha256
from dictalake.archive.load_recording import load_recording
from dictalake.audio.load import LOADER_VERSION, AudioLoader, LoadedAudio
from dictalake.config.sections import Config, Lake
from dictalake.errors import (
    AccessDenied,
    ConfigError,
    CorruptAudio,
    CredentialsExpired,
    FetchFailed,
    NotFound,
    RunError,
    TranscriptionError,
)
from dictalake.lake.query import connect, lock
from dictalake.lake.rechecks import Recheck, Verdict
from dictalake.records import Data, Recording
from dictalake.workflow.row_origin import find_object

TOLERANCE_S = 0.06  # a frame of FLAC is longer; decoders give a few milliseconds more or less at an end
_AHEAD = 2  # objects in hand for each process that decodes: one is fetched meanwhile
_BATCH = 1_000
_MEMORY = "400MB"
_STORAGE = {FetchFailed.reason, AccessDenied.reason, CredentialsExpired.reason}
Row = Mapping[str, Any]

# Of each recording the last attempt under a fingerprint, if it is good. Those that the loader of today has read, then or in an
# earlier recheck, are left out, but for those whose bytes could not be fetched. ``again`` takes in those known to lack sound.
_PLAN = """
    CREATE TEMP TABLE plan AS
    SELECT h.recording_id, h.fingerprint, h.attempt, h.archive_id, h.source, h.quality.duration_s AS duration_s,
        h.quality.lost_s AS lost_s, coalesce(h.archive_id, h.recording_id) AS object_id
    FROM (
        SELECT recording_id, fingerprint, attempt, status, archive_id, source, quality FROM transcript_rows
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1
    ) AS h LEFT JOIN rechecks AS r
        ON r.recording_id = h.recording_id AND r.fingerprint = h.fingerprint AND r.attempt = h.attempt AND r.loader >= $loader
    WHERE h.status = 'ok' AND h.source.uri IS NOT NULL AND (
        (coalesce(h.source.loader, 0) < $loader
            AND (r.recording_id IS NULL OR (r.verdict = 'unread' AND r.is_same IS NULL)))
        OR ($again AND (h.quality.lost_s > 0 OR r.verdict IN ('lost', 'unknown', 'unread'))))
"""


class RecheckList:
    """The rows to compare: ``objects`` of the archive with ``rows`` in all. It stays on disk, in the order of the objects."""

    def __init__(self, lake: Lake, *, again: bool = False) -> None:
        """``again`` takes in rows that are known to lack sound. Raises ConfigError and RunError as ``connect``."""
        self._folder = TemporaryDirectory(prefix="dictalake-recheck-")
        self._database = connect(lake.uri or "", lake.storage_options, names=("rechecks",))
        self._database.execute(f"SET memory_limit = '{_MEMORY}'")
        lock(self._database, Path(self._folder.name))
        try:
            self._database.execute(_PLAN, {"loader": LOADER_VERSION, "again": again})
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # their messages may quote paths
            raise RunError(f"cannot read the lake ({type(error).__name__}); run the same command again") from None
        [(self.rows, self.objects)] = self._database.execute("SELECT count(*), count(DISTINCT object_id) FROM plan").fetchall()

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[list[Row]]:
        """The rows of one object of the archive after the other."""
        reader = self._database.sql("FROM plan ORDER BY object_id, recording_id, fingerprint").to_arrow_reader(_BATCH)
        rows = (row for batch in reader for row in batch.to_pylist())
        for _, of_object in groupby(rows, key=lambda row: str(row["object_id"])):
            yield list(of_object)


def recheck(config: Config, plan: RecheckList, processes: int) -> Iterator[list[Recheck]]:
    """What is found of each object of ``plan``, as it is found: a record a row. A bad recording never ends it.

    Raises ConfigError, and RunError where the storage gives nothing any more (``limits.storage_failures``).
    """
    # Neither speech nor a patient's name is looked for.
    config = config.model_copy(
        update={
            "quality": config.quality.model_copy(update={"vad": "none"}),
            "archive": config.archive.model_copy(update={"patient_fields": ()}),
        }
    )
    refused = 0
    with closing(_recheck_ahead(config, plan, processes)) as of_objects:
        for found in of_objects:
            refused = _count_refusals(found, refused, config.limits.storage_failures)
            yield found


def _recheck_ahead(config: Config, plan: RecheckList, processes: int) -> Generator[list[Recheck]]:
    """What is found of each object, in the order of ``plan``. Some objects are in hand before they are asked for."""
    loader, running = _HashingLoader(config, processes), deque[Future[list[Recheck]]]()
    with ThreadPoolExecutor(_AHEAD * processes) as pool:
        try:
            for rows in plan:
                running.append(pool.submit(recheck_object, rows, config, loader))
                if len(running) >= 2 * _AHEAD * processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _count_refusals(found: Sequence[Recheck], before: int, most: int) -> int:
    """How many rows in a row the storage did not give. Raises RunError above ``most``, unless that is 0."""
    if any(one.reason not in _STORAGE for one in found):
        return 0
    refused = before + len(found)
    if most and refused >= most:
        raise RunError(
            f"the storage of the archive did not give any of the last {refused} recordings ({found[-1].reason}): check its "
            "credentials and the network, then run the same command again to resume"
        )
    return refused


class _HashingLoader(AudioLoader):
    """Knows the SHA-256 of the bytes of each recording that it was given."""

    def __init__(self, config: Config, children: int) -> None:
        super().__init__(config, children)
        self._hashes: dict[str, str] = {}

    def load(self, data: Data, recording: Recording) -> LoadedAudio:
        self._hashes[recording.recording_id] = find_sha256(data)
        return super().load(data, recording)

    def take_hash(self, recording_id: str) -> str | None:
        """Once; None where the bytes did not come to the loader."""
        return self._hashes.pop(recording_id, None)


def recheck_object(rows: Sequence[Row], config: Config, loader: _HashingLoader) -> list[Recheck]:
    """A record for each of ``rows``, which come from one object. Raises ConfigError, which every object would meet."""
    try:
        of_archive = find_object({**rows[0], "metadata": None})
    except ConfigError:  # the row does not say where it comes from
        return [judge(row, NotFound(row["recording_id"], "the row does not name its archive object"), None) for row in rows]
    wanted: dict[str, list[Row]] = {}
    for row in rows:
        wanted.setdefault(row["recording_id"], []).append(row)
    found: list[Recheck] = []
    failure: TranscriptionError = NotFound(of_archive.recording_id, "the archive object holds it no longer")
    for recording, loaded in load_recording(of_archive, config, loader, only=wanted):
        digest = loader.take_hash(recording.recording_id)
        if recording.recording_id in wanted:
            found += [judge(row, loaded, digest) for row in wanted.pop(recording.recording_id)]
        elif isinstance(loaded, TranscriptionError):  # of the archive object itself
            failure = loaded
    return found + [judge(row, failure, None) for left in wanted.values() for row in left]


@dataclass(frozen=True)
class _Measures:
    """What a row, or a reading of today, says of the sound. ``lost_s`` counts what it held and could not be decoded."""

    duration_s: float
    lost_s: float

    @property
    def sound_s(self) -> float:
        return self.duration_s - self.lost_s


def judge(row: Row, loaded: LoadedAudio | TranscriptionError, digest: str | None) -> Recheck:
    """Compares ``row`` (the columns of a RecheckList) with what was read today from bytes with the SHA-256 ``digest``.

    Of the same bytes a row lost sound where more of it, or of channels, is decoded today, where the account knows of holes
    that the row does not, and where they are refused as corrupt; and where less is decoded, for then the row is of noise, or
    of a tail that was repeated. Where all of that is the same and nobody can tell today what is lost, the row may be whole or
    not. Of other bytes a row lost sound only where they give more than the row has.
    """
    source = row["source"]
    is_same = None if digest is None else source["sha256"] in (None, digest)
    record: dict[str, Any] = {name: row[name] for name in ("recording_id", "fingerprint", "attempt")}
    record |= {"loader": LOADER_VERSION, "at": datetime.now(UTC), "row_duration_s": row["duration_s"], "is_same": is_same}
    if isinstance(loaded, TranscriptionError):
        # A file that is cut off in a damaged archive is another matter: its bytes did not come to the loader.
        is_lost = is_same is True and loaded.reason == CorruptAudio.reason
        return Recheck(**record, verdict="lost" if is_lost else "unread", reason=loaded.reason)
    lost_s: float | None = loaded.quality["lost_s"]
    then = _Measures(row["duration_s"] or 0.0, row["lost_s"] or 0.0)
    now = _Measures(loaded.duration_s, lost_s or 0.0)
    record |= {"duration_s": now.duration_s, "lost_s": lost_s, "repairs": tuple(loaded.quality["repairs"])}
    verdict: Verdict
    if is_same is False:
        verdict = "lost" if now.sound_s > then.sound_s + TOLERANCE_S else "changed"
        missing_s = now.duration_s - then.sound_s
    else:
        has_more_channels = (loaded.format["channels"] or 0) > (source["channels"] or loaded.format["channels"] or 0)
        is_lost = has_more_channels or abs(now.duration_s - then.duration_s) > TOLERANCE_S
        # A row without an account counts as one that lost nothing.
        is_lost = is_lost or (lost_s is not None and abs(now.lost_s - then.lost_s) > TOLERANCE_S)
        verdict = "lost" if is_lost else "unknown" if lost_s is None else "complete"
        missing_s = now.duration_s if has_more_channels else max(now.duration_s - then.duration_s, now.lost_s)
    if verdict == "complete":
        missing_s = 0.0
    # The view ``transcripts`` shows no row before this one that lacks more than is missing here: it may not be too little.
    is_known = lost_s is not None and verdict in ("lost", "complete")
    return Recheck(**record, verdict=verdict, missing_s=missing_s if is_known else None)
