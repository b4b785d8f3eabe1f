"""Finds what an erasure would take, before it takes anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dictalake.config.sections import PATIENT_HASHES, Lake
from dictalake.config.uris import leads_through_link, list_spellings, today_uri
from dictalake.lake.delta import has_table
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import RUNS_FOLDER
from dictalake.lake.row_search import Match, Row, RowSearch, iter_scan
from dictalake.lake.schema import RUNS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.table_log import TableLog
from dictalake.lake.tombstones import Tombstone, hash_subject, hash_version, read_erased
from dictalake.records import BAD_LINE_VERSION, list_subject_uris


@dataclass(frozen=True)
class Subjects:
    """What to erase: recordings by id, URI (of an archive object with all its files), Study Instance UID or patient hash."""

    recordings: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.recordings or self.uris or self.studies or self.patients)


@dataclass(frozen=True)
class Plan:
    """What an erasure would take: rows of the lake, and how many recordings that a run was asked to do and that have none.

    ``unknown`` is what matches nothing, ``erased_before`` what matches only that it was erased. ``unhashed`` rows of DICOM
    objects were made without hashes of patients: those that were named by a hash may be in them. ``doubtful`` rows have a path
    through a link that leads to another file now: they may be of what was named, and are left.
    """

    rows: tuple[Row, ...]
    waiting: int
    unknown: Subjects
    erased_before: Subjects
    unhashed: int = 0
    doubtful: tuple[Row, ...] = ()
    asked: Subjects = Subjects()

    @property
    def recordings(self) -> int:
        return len({row["recording_id"] for row in self.rows})


@dataclass(frozen=True)
class _InManifests:
    """The ids and the named URIs that manifests hold; ``pending`` are ids of recordings that were not blanked there."""

    ids: set[str]
    uris: set[str]
    pending: set[str]


class Planner:
    """Looks for ``subjects`` in the rows of a lake and in what its runs were asked to do. ``search`` finds the rows again."""

    def __init__(self, lake: Lake, subjects: Subjects, storage: Storage) -> None:
        self._lake, self._subjects = lake, subjects
        self._spellings = {uri: list_spellings(uri) for uri in subjects.uris}
        named = [spelling for spellings in self._spellings.values() for spelling in spellings]
        self._match = Match(subjects.recordings, named, subjects.studies, subjects.patients)
        self.search = RowSearch(storage, self._match)

    def look(self) -> Plan:
        """Changes nothing. Raises RunError, OSError, DeltaError."""
        in_manifests = self._look_into_manifests()
        growth, rows = -1, list[Row]()
        while growth != self._match.growth:  # other versions of the same objects
            growth, rows = self._match.growth, self.search.find()
            for row in rows:
                self._match.add_row(row)
        unknown, before = self._find_unknown(rows, in_manifests)
        unhashed = self._count_unhashed(rows) if self._subjects.patients else 0
        waiting = len(in_manifests.pending - {row["recording_id"] for row in rows})
        found = {row["recording_id"] for row in rows}
        doubtful = tuple(row for one, row in sorted(self._match.doubtful.items()) if one not in found)
        return Plan(tuple(rows), waiting, unknown, before, unhashed, doubtful, self._subjects)

    def list_tombstones(self, left_out: Subjects) -> Iterator[Tombstone]:
        """For what was named and for the URIs of what was found, but not for ``left_out``."""
        uris = self._match.uris - {spelling for uri in left_out.uris for spelling in self._spellings[uri]}
        # Of a manifest only the lines that were found are kept out, not those to come.
        lists = {one for uri in self._subjects.uris if self._is_list(uri) for one in self._spellings[uri]}
        uris -= lists
        for uri in sorted(lists):
            yield Tombstone("uri", hash_subject("list", uri))
        # A row may have the URI that an older version wrote. A path through a link keeps out nothing by itself.
        uris = {one for one in uris if not leads_through_link(one)} | set(map(today_uri, uris)) | self._match.today
        kept = _without(self._subjects, left_out)
        for uri, version in sorted(self._match.linked):
            yield Tombstone("uri", hash_version(uri, version))
            yield Tombstone("uri", hash_subject("place", uri))
        for kind, values in (("uri", sorted(uris)), ("study", kept.studies), ("patient", kept.patients)):
            for value in values:
                yield Tombstone(kind, hash_subject(kind, value))

    def _is_list(self, uri: str) -> bool:
        """Whether what was named is a manifest that matched by its bad lines, and nothing else."""
        spellings = self._spellings[uri]
        return not self._match.lists.isdisjoint(spellings) and self._match.objects.isdisjoint(spellings)

    def _look_into_manifests(self) -> _InManifests:
        """Finds the named recordings in what runs were asked to do: they may have no row yet."""
        found = _InManifests(set(), set(), set())
        ids, uris = pa.array(sorted(self._match.ids), pa.string()), pa.array(sorted(self._match.uris), pa.string())
        if not (len(ids) or len(uris)):
            return found
        manifests = Manifests(self._lake)
        for path in manifests.paths():
            for block in manifests.read_part(path):
                wanted = pc.or_(pc.is_in(block["recording_id"], value_set=ids), pc.is_in(block["uri"], value_set=uris))
                wanted = pc.or_(wanted, pc.equal(block["version"], BAD_LINE_VERSION))
                for row in block.filter(wanted).select(["recording_id", "uri", "version"]).to_pylist():
                    own = list_subject_uris(row["uri"], row["version"])
                    named = self._match.uris.intersection(own)
                    if row["recording_id"] in self._match.ids or named:
                        found.ids.add(row["recording_id"])
                        found.uris.update(named)
                        self._match.add_row(row | {"archive_id": None})
                        found.pending.update([row["recording_id"]] if row["uri"] else [])
        return found

    def _find_unknown(self, rows: list[Row], in_manifests: _InManifests) -> tuple[Subjects, Subjects]:
        """What matches nothing, and what was erased before."""
        ids = {row["recording_id"] for row in rows} | {row["archive_id"] for row in rows} | in_manifests.pending
        own = (list_subject_uris(row["uri"], row["version"], row["archive_id"]) for row in rows if row["uri"])
        uris = {today for one in own for uri in one for today in (uri, today_uri(uri))} | in_manifests.uris
        studies = {row["study"] for row in rows}
        patients = {row[name] for row in rows for name in PATIENT_HASHES.values()}
        unfound = Subjects(
            tuple(one for one in self._subjects.recordings if one not in ids),
            tuple(one for one in self._subjects.uris if uris.isdisjoint(self._spellings[one])),
            tuple(one for one in self._subjects.studies if one not in studies),
            tuple(one for one in self._subjects.patients if one not in patients),
        )
        if not unfound:
            return unfound, Subjects()
        erased = read_erased(self._lake)
        erased_ids = in_manifests.ids | self.search.find_erased(unfound.recordings)
        before = Subjects(
            tuple(one for one in unfound.recordings if one in erased_ids),
            tuple(one for one in unfound.uris if any(map(erased.covers_name, self._spellings[one]))),
            tuple(one for one in unfound.studies if hash_subject("study", one) in erased.hashes),
            tuple(one for one in unfound.patients if hash_subject("patient", one) in erased.hashes),
        )
        return _without(unfound, before), before

    def _count_unhashed(self, rows: list[Row]) -> int:
        """How many rows may be of a named patient although no hash says so: their run did not make it."""
        named = set(self._subjects.patients)
        columns = {name for row in rows for name in PATIENT_HASHES.values() if row[name] in named}
        counts = self.search.count_without_hash(columns or PATIENT_HASHES.values())
        made = _read_patient_fields(self._lake, counts)
        wanted = {field for field, name in PATIENT_HASHES.items() if name in columns}
        return sum(
            count for run_id, count in counts.items() if not (wanted <= made.get(run_id, set()) if wanted else made.get(run_id))
        )


def _without(subjects: Subjects, others: Subjects) -> Subjects:
    return replace(subjects, **{n: tuple(one for one in v if one not in getattr(others, n)) for n, v in vars(subjects).items()})


def _read_patient_fields(lake: Lake, run_ids: Iterable[str]) -> dict[str, set[str]]:
    """Of which fields of patients these runs made hashes, as their records say."""
    storage = open_storage(lake, RUNS_FOLDER)
    if not has_table(storage):
        return {}
    wanted = ds.field("run_id").isin(pa.array(sorted(run_ids), pa.string())) & (ds.field("event") == "started")
    found = {}
    for batch in iter_scan(TableLog(storage, RUNS).paths(), RUNS, storage, ["run_id", "config"], wanted):
        for row in batch.to_pylist():
            try:
                found[row["run_id"]] = set(json.loads(row["config"] or "{}").get("archive", {}).get("patient_fields") or ())
            except ValueError:  # blanked: nobody knows
                continue
    return found
