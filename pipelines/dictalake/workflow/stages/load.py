"""The first stage: recordings → waveforms. Arrow table in, Arrow tables out.

An archive object (ZIP, TAR) gives a row for each file in it, so more rows may come out than went in. They come in tables of
bounded audio as soon as they are ready: neither a block of long recordings nor an archive of a million short ones is ever in
memory as a whole.
"""

from __future__ import annotations

import hmac
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from dictalake.archive.budget import ObjectBudget
from dictalake.archive.descriptors import find_sha256
from dictalake.archive.fetch import fetch
from dictalake.archive.globs import compile_globs
from dictalake.archive.members import Member
from dictalake.archive.unpack import Contents, find_kind, open_members
from dictalake.audio.load import DECODERS, LOADER_VERSION, AudioLoader
from dictalake.config.sections import PATIENT_HASHES, PATIENT_KEY, Config, Lake
from dictalake.errors import ConfigError, Erased, NoAudio
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.records import SAMPLE_RATE_HZ, Data, Recording
from dictalake.workflow import columns
from dictalake.workflow.stages.base import capture_row_error, redacting

_THREADS = 8  # most of the time they wait for the storage
_FETCHED_AHEAD = 12  # recordings that are being fetched or wait to be decoded
_MOST_ROWS = 1024  # in one output table: even a short row has a cost in every later stage
_LEAST_KEY = 16  # bytes
Item = TypeVar("Item")
Result = TypeVar("Result")
Row = dict[str, Any]


class FromManifest:
    """Places of blocks in the manifest → the output of ``load`` for their recordings."""

    def __init__(self, lake: Lake, run_id: str, load: Callable[[pa.Table], Iterator[pa.Table]]) -> None:
        self._lake, self._run_id, self._load = lake, run_id, load

    def __call__(self, places: pa.Table, choose: Callable[[pa.Table], pa.Table] = lambda block: block) -> Iterator[pa.Table]:
        """``choose`` says what of a block is to be loaded; a block of which nothing is left is passed over."""
        with redacting(self):
            manifests = Manifests(self._lake)
            for place in places.to_pylist():
                block = choose(manifests.read_block(self._run_id, BlockPlace(**place)))
                if block.num_rows:
                    yield from self._load(block)


class Load:
    """Recordings → waveforms: fetches; then, in a sandbox, decodes, converts each channel to int16 at 16 kHz, and measures."""

    def __init__(
        self,
        config: Config,
        forbidden: ErasedSubjects = ErasedSubjects(),  # noqa: B008
        *,
        is_listed: bool = False,
    ) -> None:
        """Recordings that ``forbidden`` covers are not loaded. ``is_listed``: they are all of ``config.archive``."""
        self._is_listed = is_listed
        self._forbidden = forbidden
        self._loader = AudioLoader(config)
        self._archive, self._limits, self._level = config.archive, config.limits, config.sandbox.level
        self._most_samples = config.ray.block_audio_s * SAMPLE_RATE_HZ
        self._most_bytes = config.ray.block_mb * 1e6
        compile_globs(config.archive.member_include, "archive.member_include")
        if config.archive.patient_fields:
            read_patient_key()  # fails on a missing key before the run, not in its first worker

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        with redacting(self), ThreadPoolExecutor(_THREADS) as pool:
            recordings: list[Recording] = []
            rows: list[Row] = []
            samples = 0
            ids = table["recording_id"].to_pylist()
            # A recording that has an error before anything was read: it killed workers, or its line of the manifest is bad.
            refused = dict(zip(ids, table["error"].to_pylist(), strict=True)) if "error" in table.column_names else {}
            for recording, row in self._load_all(columns.table_to_recordings(table), refused, pool):
                length = sum(len(channel) for channel in row.get("waveforms", ()))
                if rows and (samples + length > self._most_samples or len(rows) >= _MOST_ROWS):
                    yield _make_table(recordings, rows)
                    recordings, rows, samples = [], [], 0
                recordings.append(recording)
                rows.append(row)
                samples += length
            yield _make_table(recordings, rows)

    def _load_all(
        self, recordings: list[Recording], refused: dict[str, Any], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Recording, Row]]:
        """Every recording of the block with its row, in order; the files in an archive object, one object at a time, come where
        it comes, so that no object waits in memory for its turn."""
        for recording in recordings:
            if refused.get(recording.recording_id):
                yield recording, {"error": refused[recording.recording_id]}
        sized = ((one, one.size_bytes) for one in recordings if not refused.get(one.recording_id))
        for recording, row in self._load(self._fetch, sized, pool):
            if "kind" in row:
                yield from self._expand(recording, row, pool)
            else:
                yield recording, row

    def _load(
        self,
        fetch_one: Callable[[Item], tuple[Recording, Row]],
        items: Iterable[tuple[Item, int]],
        pool: ThreadPoolExecutor,
        budget: ObjectBudget | None = None,
    ) -> Iterator[tuple[Recording, Row]]:
        """Fetches ahead by stored size, but decodes only few items ahead: a small file may hold much audio. More counts as soon
        as it has come: a storage may announce less than it sends."""
        fetched = _map_ahead(pool, fetch_one, items, _FETCHED_AHEAD, self._most_bytes, _count_bytes)
        decode = partial(self._decode, budget=budget)
        return _map_ahead(pool, decode, ((pair, 0) for pair in fetched), DECODERS + 1, self._most_bytes)

    def _fetch(self, recording: Recording) -> tuple[Recording, Row]:
        """The bytes of one object as ``data``, and the ``kind`` of an archive object."""
        started = time.perf_counter()
        row: Row = {}
        with capture_row_error(recording.recording_id, "load", row):
            if not recording.uri:  # blanked in the manifest
                raise Erased(recording.recording_id, "it was erased after the run began")
            row["retries"] = 0

            def count() -> None:
                row["retries"] += 1

            row["data"] = fetch(recording, self._archive, limits=self._limits, on_retry=count, is_listed=self._is_listed)
            row["sha256"] = find_sha256(row["data"])
            if kind := find_kind(row["data"], self._archive):
                row["kind"] = kind
        row["load_ms"] = 1000 * (time.perf_counter() - started)
        return recording, row

    def _expand(self, archive: Recording, row: Row, pool: ThreadPoolExecutor) -> Iterator[tuple[Recording, Row]]:
        """The files in an archive object that are not done yet, and a failed row for the object if part of it is damaged."""
        data, kind = row.pop("data"), row.pop("kind")
        itself: Row = {"sha256": row["sha256"]}
        rows = 1
        with capture_row_error(archive.recording_id, "load", itself):
            with open_members(data, kind, archive, self._archive, self._limits, self._level) as contents:
                # If something unforeseen ends this, the object's own row is one more, so the object is not complete.
                rows = contents.rows + (contents.damage is None)
                done = set(archive.done_members)
                if contents.damage is None and done.issuperset(member.recording_id for member, _ in contents.members):
                    raise NoAudio(
                        archive.recording_id,
                        "nothing in this archive object is left to transcribe: archive.member_include admits fewer files than "
                        "when it was begun",
                    )
                budget = ObjectBudget(self._limits)
                wanted = (
                    ((contents, *found, budget), found[1].size_bytes)
                    for found in contents.members
                    if found[0].recording_id not in done
                )
                yield from self._load(self._fetch_member, wanted, pool, budget)
            contents.check_whole()
        if "error" in itself and archive.recording_id not in archive.done_members:
            yield replace(archive, archive_id=archive.recording_id, archive_rows=rows), itself

    def _fetch_member(self, wanted: tuple[Contents, Recording, Member, ObjectBudget]) -> tuple[Recording, Row]:
        contents, recording, member, budget = wanted
        started = time.perf_counter()
        row: Row = {}
        with capture_row_error(recording.recording_id, "load", row):
            if self._forbidden.covers_recording(recording.uri, recording.version, recording.archive_id):
                raise Erased(recording.recording_id, "it was erased and is kept out")
            budget.require(recording.recording_id)
            with budget.working():
                row["data"] = contents.read(recording, member, self._limits)
            row["sha256"] = find_sha256(row["data"])
        row["load_ms"] = 1000 * (time.perf_counter() - started)
        return recording, row

    def _decode(self, fetched: tuple[Recording, Row], budget: ObjectBudget | None = None) -> tuple[Recording, Row]:
        recording, row = fetched
        if "error" in row or "kind" in row:
            return recording, {name: value for name, value in row.items() if name != "data" or "kind" in row}
        started = time.perf_counter()
        row["loader"] = LOADER_VERSION  # also of bytes that it refuses: a later version may read them
        with capture_row_error(recording.recording_id, "load", row):
            data = row.pop("data")
            if budget is not None:
                budget.require(recording.recording_id)  # also of those that were fetched before it was used up
            with nullcontext() if budget is None else budget.working():
                row |= self._decode_bytes(data, recording)
            if budget is not None:
                budget.add_sound(sum(len(channel) for channel in row["waveforms"]) / SAMPLE_RATE_HZ)
        row["load_ms"] += 1000 * (time.perf_counter() - started)
        return recording, row

    def _decode_bytes(self, data: Data, recording: Recording) -> Row:
        audio = self._loader.load(data, recording)
        hashes = hash_patient(audio.patient)
        if self._forbidden.covers_dicom({**(audio.dicom or {}), **hashes}):
            raise Erased(recording.recording_id, "its study or patient was erased and is kept out")
        row: Row = {"format": audio.format}
        if audio.dicom is not None:
            row["content_datetime"] = audio.content_datetime
            row["dicom"] = list((audio.dicom | hashes).items())
        row["speech"] = [np.ravel(intervals).tolist() for intervals in audio.speech]
        return row | audio.quality | {"waveforms": list(audio.waveforms)}


def _make_table(recordings: list[Recording], rows: list[Row]) -> pa.Table:
    waveforms = [row.pop("waveforms", ()) for row in rows]
    table = columns.extend(
        columns.recordings_to_table(recordings), columns.LOADED_COLUMNS, rows, drop=["done_members", "member_attempts"]
    )
    return columns.append_waveforms(table, waveforms)


def _count_bytes(fetched: tuple[Recording, Row]) -> int:
    return len(fetched[1].get("data", b""))


def _map_ahead(
    pool: ThreadPoolExecutor,
    call: Callable[[Item], Result],
    items: Iterable[tuple[Item, int]],
    ahead: int,
    most_bytes: float,
    measure: Callable[[Result], int] = lambda result: 0,
) -> Iterator[Result]:
    """Like ``pool.map`` over items with their sizes in bytes, but with bounded memory, whatever an archive holds.

    Between taking an item and yielding its result there are at most ``ahead`` items, and at most ``most_bytes`` or a single
    larger item. Where ``measure`` says of a result that it has more bytes than its item, nothing more is taken until there is
    room again.
    """
    running: deque[tuple[Future[Result], int]] = deque()

    def count() -> int:
        known = (measure(future.result()) if future.done() and not future.exception() else 0 for future, _ in running)
        return sum(map(max, known, [size for _, size in running]))

    try:
        for item, size in items:
            while running and (len(running) >= ahead or count() + size > most_bytes):
                yield running[0][0].result()
                running.popleft()
            running.append((pool.submit(call, item), size))
        while running:
            yield running.popleft()[0].result()
    finally:
        for future, _ in running:
            future.cancel()


def hash_patient(fields: dict[str, str]) -> dict[str, str]:
    """DICOM attributes of the patient → ``patient_id_hash`` …: HMAC-SHA-256 of name and value, hex, keyed from the environment.

    The same patient has the same hash under the same key. Without the key, nobody can find the patient by trying names.
    """
    if not fields:
        return {}
    key = read_patient_key()
    return {
        PATIENT_HASHES[keyword]: hmac.new(key, f"{keyword}\n{value}".encode(), "sha256").hexdigest()
        for keyword, value in fields.items()
    }


def read_patient_key() -> bytes:
    """The key of the patient hashes. Raises ConfigError if it is missing or short."""
    key = os.environb.get(PATIENT_KEY.encode(), b"")  # it need not be text
    if len(key) < _LEAST_KEY:
        raise ConfigError(
            f"archive.patient_fields needs a secret key of at least {_LEAST_KEY} bytes in the environment variable "
            f"{PATIENT_KEY}, on every machine of the cluster; keep it: another key gives other hashes"
        )
    return key
