"""The reports that runs wrote into the lake, ``reports/<run_id>.html``.

The row of a recording is one line, with its id in ``data-recording``, so an erasure removes lines.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from html import escape, unescape

from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.lake.places import REPORTS_FOLDER
from dictalake.lake.storage import open_storage

_NAMED = re.compile(r'data-recording="([^"]*)"')
_PARTIAL_S = 3600.0


class Reports:
    """The reports of a lake. Raises ConfigError for a bad ``lake.uri``, OSError when the lake cannot be reached."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, REPORTS_FOLDER)

    def write(self, run_id: str, page: str) -> str:
        """Writes or replaces a page; returns its path below the lake."""
        self._storage.write_bytes(f"{run_id}.html", page.encode())
        return f"{REPORTS_FOLDER}/{run_id}.html"

    def find(self, run_id: str | None = None) -> list[str]:
        """The ids of the runs that have a report, of all or of one. Also removes what a killed writer left behind."""
        infos = self._storage.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
        for info in infos:
            if info.path.endswith(".partial") and time.time() - (info.mtime_ns or 0) / 1e9 > _PARTIAL_S:
                self._storage.filesystem.delete_file(info.path)
        found = sorted(info.path.removesuffix(".html") for info in infos if info.path.endswith(".html"))
        return [one for one in found if run_id in (None, one)]

    def read(self, run_id: str) -> str:
        with self._storage.filesystem.open_input_file(f"{run_id}.html") as source:
            return str(source.read().decode())

    def list_recordings(self, run_id: str) -> set[str]:
        """The ids of the recordings that a report names."""
        return {unescape(found) for found in _NAMED.findall(self.read(run_id))}

    def take_out(self, run_id: str, recording_ids: Collection[str]) -> int:
        """Removes the lines of these recordings; returns how many there were."""
        unwanted = [f'data-recording="{escape(one)}"' for one in recording_ids]
        lines = self.read(run_id).splitlines(keepends=True)
        kept = [line for line in lines if not any(name in line for name in unwanted)]
        self.write(run_id, "".join(kept))
        return len(lines) - len(kept)
