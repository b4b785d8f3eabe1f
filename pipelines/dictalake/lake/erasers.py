"""What an erasure does in each folder of the lake: ``ERASERS`` has a step for each place of ``places.PLACES``.

A step removes what tombstones cover, or what speaks of recordings that have no row any more, and returns how much under the
names of ``erase.Receipt``. Each is safe beside runs and to call again. The steps raise RunError, OSError and DeltaError.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.config.uris import canonical_uri
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import has_table, open_table, retry_on_conflict
from dictalake.lake.gone_rows import IDLE_S, drop_rows_of_gone, find_recordings
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import (
    CLAIMS_FOLDER,
    FINDINGS_FOLDER,
    LINEAGE_FOLDER,
    MANIFESTS_FOLDER,
    PLACES,
    REPORTS_FOLDER,
    RUNS_FOLDER,
    TRANSCRIPTS_FOLDER,
    Place,
)
from dictalake.lake.reports import Reports
from dictalake.lake.row_removal import replace_rows
from dictalake.lake.row_search import find_erased, iter_scan, list_files, scan
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.lake.unreferenced_files import covers_location, delete_forbidden_files

PASSES = 10  # a commit that was under way may bring a row back, which the next pass removes
IDS_AT_ONCE = 500
_THREADS = 16
_BLANK = {"uri": "", "version": "", "size_bytes": 0, "modified_at": None, "metadata": [], "error": None}
_ERASED = "erased"
# A file that was being written when its process was killed, also by delta-rs (object_store: ``name#1``).
_UNFINISHED = re.compile(r".*(\.partial|\.tmp|#\d+)")
# Keys of ``archive`` that name places: below ``archive.uri`` those with a mark.
_PLACE_KEYS = {"uri": "", "allowed": "", "include": "/", "member_include": "#"}
_GLOB = re.compile(r"[*?\[{]")
_LOOK_AGAIN_S = 1.0
_BUSY_S = 3600.0  # how long a file may be written to while runs are at work

Counts = dict[str, int]
Step = Callable[[Lake, ErasedSubjects], Counts]


def sweep_transcripts(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    """Deletes files that no version names and that hold what was erased. It leaves the rows that readers see."""
    storage, columns = open_storage(lake, TRANSCRIPTS_FOLDER), ["source", "archive_id", "dicom"]
    return {"files_deleted": delete_forbidden_files(storage, TRANSCRIPTS, columns, forbidden)}


def sweep_manifests(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    return {"manifest_rows": blank_manifests_by_rows(lake, forbidden)}


def blank_manifests_by_rows(lake: Lake, forbidden: ErasedSubjects, run_id: str | None = None) -> int:
    """As ``blank_manifests``, and also what has a row that says it was erased: only its bytes named the study or patient."""
    manifests = Manifests(lake)
    if not manifests.paths(run_id):
        return 0
    return blank_manifests(manifests, forbidden, run_id, find_erased(open_storage(lake, TRANSCRIPTS_FOLDER)))


def blank_manifests(
    manifests: Manifests, forbidden: ErasedSubjects, run_id: str | None = None, erased_ids: Collection[str] = ()
) -> int:
    """Blanks what is forbidden, or has one of these ids, in the manifests of all runs, or of one; returns how many rows.

    An erased recording keeps its place and its id there, so that a live run finds its blocks unchanged.
    """
    blanked = 0
    for path in manifests.paths(run_id):
        parts = manifests.read_part(path)
        changed = []
        for block in parts:
            named = zip(*(block[name].to_pylist() for name in ("recording_id", "uri", "version")), strict=True)
            covered = [
                bool(uri) and (one in erased_ids or forbidden.covers_recording(uri, version)) for one, uri, version in named
            ]
            blanked += sum(covered)
            rows = block.to_pylist() if any(covered) else []
            for row, is_covered in zip(rows, covered, strict=False):
                row.update(_BLANK if is_covered else {})
            changed.append(pa.Table.from_pylist(rows, schema=block.schema) if rows else block)
        if any(new is not old for new, old in zip(changed, parts, strict=True)):
            manifests.rewrite_part(path, changed)
    return blanked


def blank_run_records(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    """Blanks the archive of runs that name an erased object. Rows are replaced by run, as predicates stay in the log."""
    storage = open_storage(lake, RUNS_FOLDER)
    if not has_table(storage):
        return {}
    delta = open_table(storage, RUNS)
    changed = 0

    def blank(run_id: str) -> int:
        of_run = scan(list_files(delta), RUNS, storage, RUNS.names, ds.field("run_id") == run_id).to_pylist()
        covered = [row for row in of_run if names_erased(row, forbidden)]
        for row in covered:
            row.update(archive_uri=_ERASED, config=_blank_config(row["config"]))
        replace_rows(delta, storage, pa.Table.from_pylist(of_run, schema=without_docs(RUNS)), f"run_id = '{run_id}'")
        return len(covered)

    batches = iter_scan(list_files(delta), RUNS, storage, ["run_id", "archive_uri", "config"])
    run_ids = {row["run_id"] for batch in batches for row in batch.to_pylist() if names_erased(row, forbidden)}
    for run_id in sorted(run_ids):
        changed += retry_on_conflict(delta, lambda: blank(run_id))  # noqa: B023
    deleted = delete_forbidden_files(storage, RUNS, ["archive_uri", "config"], forbidden, names_erased)
    return {"run_records": changed, "files_deleted": deleted}


def names_erased(row: Mapping[str, Any], forbidden: ErasedSubjects) -> bool:
    """Whether a run record names something erased, as its archive or in a key of it: ``archive.include`` without a star."""
    archive = _read_archive(row["config"])
    lists = {archive.get("manifest"), archive.get("inventory")}  # they name recordings, and are none
    return any(_covers_place(place, forbidden) for place in {row["archive_uri"] or "", *_list_places(archive)} - lists)


def _read_archive(config: str | None) -> dict[str, Any]:
    try:
        return json.loads(config or "{}").get("archive", {})
    except ValueError:  # blanked, or of another version
        return {}


def _blank_config(config: str | None) -> str:
    """Keeps of which fields of patients the run made hashes: without that, nobody could tell whose its other rows are."""
    fields = _read_archive(config).get("patient_fields")
    return _ERASED if not fields else json.dumps({"archive": {"patient_fields": fields}})


def _list_places(archive: Mapping[str, Any]) -> Iterator[str]:
    """The places that the configuration of an archive names."""
    base = str(archive.get("uri") or "").rstrip("/")
    for key, mark in _PLACE_KEYS.items():
        value = archive.get(key) or ()
        for text in (value,) if isinstance(value, str) else value:
            if not _GLOB.search(text):
                yield f"{base}{mark}{text}" if mark else text


def _covers_place(place: str, forbidden: ErasedSubjects) -> bool:
    """Whether a place was erased, as a person may have spelled it."""
    return bool(place) and (covers_location(place, forbidden) or forbidden.covers_uri(_make_canonical(place)))


@lru_cache(maxsize=1024)
def _make_canonical(place: str) -> str:
    return canonical_uri(place)


def sweep_lineage(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    """Blanks in OpenLineage events the archive that was erased, and the words of an error, which may repeat its name."""
    storage = open_storage(lake, LINEAGE_FOLDER)
    infos = storage.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))

    def blank(path: str) -> bool:
        try:
            with storage.filesystem.open_input_stream(path) as stream:
                event = json.loads(stream.read())
        except (FileNotFoundError, ValueError):
            return False
        covered = [read for read in event.get("inputs") or () if _covers_place(_locate(read), forbidden)]
        for read in covered:
            read.update(namespace=_ERASED, name=_ERASED)
        if covered:
            error = event.get("run", {}).get("facets", {}).get("errorMessage")
            if error is not None:
                error["message"] = _ERASED
            storage.write_bytes(path, f"{json.dumps(event)}\n".encode())
        return bool(covered)

    with ThreadPoolExecutor(_THREADS) as pool:
        return {"lineage_events": sum(pool.map(blank, [info.path for info in infos if info.path.endswith(".json")]))}


def _locate(dataset: Mapping[str, Any]) -> str:
    """The place of a dataset by its OpenLineage name, the reverse of ``observers.openlineage.name_dataset``."""
    namespace, name = str(dataset.get("namespace")), str(dataset.get("name"))
    return name if namespace == "file" else f"{namespace}/{name.lstrip('/')}"


def sweep_reports(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    return {"report_lines": clear_reports(lake)}


def clear_reports(lake: Lake, run_id: str | None = None) -> int:
    """Removes recordings that no longer have a row from the reports of all runs, or of one; returns how many lines.

    It checks again after each change, since another erasure may have written an older state. Raises RunError if that persists.
    """
    reports, storage = Reports(lake), open_storage(lake, TRANSCRIPTS_FOLDER)
    run_ids, taken = reports.find(run_id), 0
    for _ in range(PASSES):
        with ThreadPoolExecutor(_THREADS) as pool:
            named = dict(zip(run_ids, pool.map(reports.list_recordings, run_ids), strict=True))
        if not any(named.values()):
            return taken
        wanted = pa.array(sorted(set().union(*named.values())), pa.string())
        there = set(find_recordings(storage, wanted).to_pylist())
        run_ids = [one for one, ids in named.items() if not ids <= there]
        if not run_ids:
            return taken
        taken += sum(reports.take_out(one, named[one] - there) for one in run_ids)
    raise RunError("erased recordings came back into reports again and again; run the same command again")


def _delete(storage: Storage, paths: Collection[str]) -> int:
    for path in paths:
        with suppress(FileNotFoundError):
            storage.filesystem.delete_file(path)
    return len(paths)


def remove_unfinished(lake: Lake, folder: str, *, is_idle: bool) -> Counts:
    """Removes files of writers that were killed, as they may hold anything. ``is_idle``: no run is at work, and the time after
    which a file counts as abandoned is short. Left are those that stand still: a live run writes some all the time. Object
    stores show no such files."""
    storage = open_storage(lake, folder)
    if not storage.is_local:
        return {}
    selector = fs.FileSelector("", recursive=True, allow_not_found=True)
    found = [info for info in storage.filesystem.get_file_info(selector) if _UNFINISHED.fullmatch(info.base_name)]
    latest = time.time() - (IDLE_S if is_idle else _BUSY_S)
    old = {info.path for info in found if info.type == fs.FileType.File and (info.mtime_ns or 0) / 1e9 < latest}
    sizes = {info.path: info.size for info in found if info.path not in old}
    if sizes and folder != CLAIMS_FOLDER:
        time.sleep(_LOOK_AGAIN_S)
    again = storage.filesystem.get_file_info(list(sizes)) if folder != CLAIMS_FOLDER else []
    left = [info for info in again if info.type != fs.FileType.NotFound and info.size == sizes[info.path]]
    return {"files_deleted": _delete(storage, old), "unfinished_left": len(left)}


def _make_dropper(place: Place) -> Step:
    return lambda lake, _: drop_rows_of_gone(lake, place)


def sweep_findings(lake: Lake, forbidden: ErasedSubjects) -> Counts:
    """Also what a run at work has written: its commit passes over files that are gone, and the run reads the others again."""
    [place] = [one for one in PLACES if one.folder == FINDINGS_FOLDER]
    return drop_rows_of_gone(lake, place, older_than_s=0.0)


ERASERS: dict[str, Step] = {
    TRANSCRIPTS_FOLDER: sweep_transcripts,
    FINDINGS_FOLDER: sweep_findings,
    RUNS_FOLDER: blank_run_records,
    MANIFESTS_FOLDER: sweep_manifests,
    REPORTS_FOLDER: sweep_reports,
    LINEAGE_FOLDER: sweep_lineage,
}


def list_steps(places: Sequence[Place] | None = None) -> Iterator[tuple[Place, Step]]:
    """The step for each place that can hold something of a person. Raises RunError for a place that has none."""
    for place in PLACES if places is None else places:
        if place.folder in ERASERS:
            yield place, ERASERS[place.folder]
        elif place.names:
            yield place, _make_dropper(place)
        elif place.personal != "none":
            raise RunError(f"erasure does not know what to do in {place.folder}/; use the dictalake that writes it")
