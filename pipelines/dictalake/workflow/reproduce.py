"""Makes rows again from the lake's records: the recorded configuration, and the recording at its recorded version.

The stages are those of a run, in one process and without Ray. Blocks are cut differently than in the run, so floats may differ
in their last digits; ``compare_rows.Tolerance`` says which differences count as equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from dictalake.archive import storage
from dictalake.config.locations import EMBEDDED, resolve
from dictalake.config.sections import Archive, Config
from dictalake.config.uris import list_spellings
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import BadManifestLine, ChangedDuringRead, ConfigError, Erased, WorkerCrashed
from dictalake.lake.schema import make_transcripts
from dictalake.records import FrameGrid, Recording
from dictalake.transcript.provenance import Provenance
from dictalake.workflow import columns
from dictalake.workflow.compare_rows import ROW_SECTIONS
from dictalake.workflow.stages.assemble import RowAssembler
from dictalake.workflow.stages.decode import Decode
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from dictalake.workflow.stages.recognize import Recognize

Row = dict[str, Any]


def recall_config(recorded: Mapping[str, Mapping[str, Any]], here: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """The configuration that a run recorded, with ``changes`` (section → key → value) in place of its values.

    ``here`` gives the sections that decide nothing in a row, the place of the lake, and storage options, which the record
    masks. Keys that this version of dictalake does not know are left out. Raises ConfigError if this version no longer accepts
    a recorded value.
    """
    values: dict[str, dict[str, Any]] = here.model_dump()
    for section in (*ROW_SECTIONS, "lake"):
        known = getattr(Config.model_fields[section].annotation, "model_fields", {})
        given = {**recorded.get(section, {}), **changes.get(section, {})}
        values[section] = {key: value for key, value in given.items() if key in known}
    values["lake"] |= {"uri": here.lake.uri, "storage_options": here.lake.storage_options}
    values["archive"]["storage_options"] = here.archive.storage_options
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"][:2])) for problem in error.errors())
        raise ConfigError(
            f"this version of dictalake does not accept the recorded configuration: {keys}; give another value, "
            "--section.key value, or use the version that the row names"
        ) from None


def why_not(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be made again; None if it can."""
    reason = (row["error"] or {}).get("reason")
    if reason == Erased.reason or row["source"] is None:
        return "it was erased: nothing is kept to make it from"
    if reason == BadManifestLine.reason:
        return "it stands for a bad line of a manifest: there is no recording to make it from"
    if reason == WorkerCrashed.reason:
        return "it ended the process of its worker, and would end this one"
    return None


@dataclass(frozen=True)
class Move:
    """The archive has moved from ``root`` (archive.uri of the run, or the folder of its manifest) to ``to``."""

    root: str
    to: str
    storage_options: Mapping[str, Any]

    def __call__(self, recording: Recording) -> Recording:
        """``recording`` at its new place. Raises ConfigError if it was not below ``root``."""
        root = self.root.rstrip("/")
        if "://" in root or root.startswith("/"):
            starts = [root if "://" in root else f"file://{root}", *list_spellings(root)]
            start = next((one for one in starts if recording.uri.startswith(f"{one}/")), None)
            is_below, rest = start is not None, recording.uri[len(start or "") + 1 :]
        else:  # it is unknown what a relative path was relative to; two folders of that name would make it a guess
            _, found, rest = recording.uri.partition(f"/{root.removeprefix(EMBEDDED).removeprefix('./')}/")
            is_below = bool(found) and found not in f"/{rest}"
        if not is_below:
            raise ConfigError(
                f"archive.uri: the recording {recording.recording_id} was not below {self.root}, so its place below another "
                "archive.uri is not known; leave archive.uri out to read it where the row says"
            )
        base = storage.make_uri(*storage.open_location(resolve(self.to), self.storage_options, "archive.uri"))
        return replace(recording, uri=f"{base.rstrip('/')}/{rest}")


def root_of(recorded: Mapping[str, Any]) -> str | None:
    """The root URI of a run's recordings; ``recorded`` is the section ``archive`` of its configuration."""
    uri: str | None = recorded.get("uri")
    manifest: str | None = recorded.get("manifest")
    return manifest.rpartition("/")[0] if uri is None and manifest is not None else uri


class Reproducer:
    """The stages of a run under one configuration, without a decoder for an engine that gives text."""

    def __init__(
        self, config: Config, provenance: Provenance, reading: tuple[Vocabulary, FrameGrid] | None, threads: int
    ) -> None:
        # Patient hashes are not compared, so their key is not needed here.
        self._archive = config.archive.model_copy(update={"patient_fields": ()})
        self._load = Load(config.model_copy(update={"archive": self._archive}))
        self._stages: list[Any]
        if reading is None:
            self._stages, grid = [Recognize(config, threads)], None
        else:
            vocabulary, grid = reading
            self._stages = [Emit(config, vocabulary, threads), Decode(config, vocabulary)]
        self._finish = RowAssembler(config, provenance, grid)

    def make(self, objects: Sequence[Recording], uris: Collection[str]) -> dict[str, Row]:
        """URI → the row of each of ``uris`` that ``objects`` hold, as it would be in the lake.

        If an object's recorded version is gone, its present version is read, and the row names that version.
        """
        made = {row["source"]["uri"]: row for row in self._run(objects, uris)}
        changed = {uri for uri, row in made.items() if (row["error"] or {}).get("reason") == ChangedDuringRead.reason}
        newest = [_find_newest(one, self._archive) for one in objects if one.uri in changed]
        if again := [one for one in newest if one is not None]:
            made |= {row["source"]["uri"]: row for row in self._run(again, uris)}
        return made

    def _run(self, objects: Sequence[Recording], uris: Collection[str]) -> Iterator[Row]:
        wanted = {*uris, *(one.uri for one in objects)}  # an object that cannot be opened has its own row
        for table in self._load(columns.recordings_to_table(objects)):
            table = table.filter(pc.is_in(table["uri"], value_set=pa.array(sorted(wanted), pa.string())))
            for stage in self._stages:
                table = stage(table)
            yield from make_transcripts([self._finish.assemble(row) for row in table.to_pylist()]).to_pylist()


def _find_newest(recording: Recording, archive: Archive) -> Recording | None:
    """``recording`` at the version that exists now; None if the object is gone."""
    filesystem, path = storage.open_location(recording.uri, archive.storage_options, "archive.uri")
    try:
        state = storage.describe(filesystem, path)
    except storage.storage_errors():
        return None
    return replace(recording, version=state.version, size_bytes=state.size_bytes, modified_at=state.modified_at)
