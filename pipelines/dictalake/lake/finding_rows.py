"""The writer of the table ``findings``. It commits as that of transcripts does, and knows of erasures in another way.

A row of this table does not say which object it comes from. It may be committed if its recording still has a row of its own:
an erasure first writes its tombstones, then removes transcripts, then looks into this table. So the writer looks for new
tombstones before each commit and again after it. Whatever the order, one of the two finds the row.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.lake.delta import has_table, open_dataset
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.gone_rows import drop_rows_of_gone, find_recordings
from dictalake.lake.places import FINDINGS_FOLDER, PLACES, TRANSCRIPTS_FOLDER
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.staged_files import StagedFile, keep_rows
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.table import CommitResult, TranscriptTable

_PLACE = next(place for place in PLACES if place.folder == FINDINGS_FOLDER)


class FindingTable(TranscriptTable):
    """The Delta table of findings, created if it is missing. Use it in one thread. Raises as TranscriptTable does."""

    rows = FINDING_ROWS

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        self._lake = lake
        self._transcripts = open_storage(lake, TRANSCRIPTS_FOLDER)

    def commit(self, files: Sequence[StagedFile]) -> CommitResult:
        result = super().commit(files)
        if self._find_new_erasures() and not self._find_there(files) >= _name_recordings(files):
            self.sweep()
        return result

    def sweep(self) -> None:
        """Removes what was committed of recordings that are erased by now. Raises RunError, OSError, DeltaError."""
        drop_rows_of_gone(self._lake, _PLACE)

    def _find_new_erasures(self) -> bool:
        """Whether something was erased since the work was planned (``committed``)."""
        self._forbidden = self.read_erasures()
        return not self._forbidden.hashes <= self._acknowledged

    def _find_there(self, files: Sequence[StagedFile]) -> set[str]:
        """The recordings of these files that have a row. After an erasure each commit asks, so it opens only their months."""
        asked, months = pa.array(sorted(_name_recordings(files)), pa.string()), {file.recorded_month for file in files}
        return set(find_recordings(self._transcripts, asked, months).to_pylist())

    def _without_erased(self, files: Sequence[StagedFile]) -> tuple[list[StagedFile], int]:
        if not self._find_new_erasures():
            return list(files), 0
        there = self._find_there(files)
        kept, dropped, replaced = [], 0, []
        for file in files:
            keep = [one in there for one in file.recording_ids]
            if all(keep):
                kept.append(file)
                continue
            dropped += keep.count(False)
            if any(keep):
                kept.append(keep_rows(file, keep, self._storage, self.rows))
            replaced.append(file.path)
        for path in replaced:
            self._storage.filesystem.delete_file(path)
        return kept, dropped


def _name_recordings(files: Sequence[StagedFile]) -> set[str]:
    return {one for file in files for one in file.recording_ids}


def open_findings(storage: Storage) -> ds.Dataset:
    """All rows. A lake from which nobody extracted anything has none."""
    return open_dataset(storage, FINDINGS) if has_table(storage) else ds.dataset(FINDINGS.empty_table())
