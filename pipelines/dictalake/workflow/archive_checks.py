"""What a run asks of its archive as a whole: that the lake's own files are not in it, and that it has not vanished.

A lake may lie inside the archive that it is made of. Its files are no recordings: transcribed, they would be more every night.
An archive that lists nothing although the lake holds recordings from there is most likely a mount that is missing, or a bucket
that was emptied. A run that found nothing to do would hide that.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.exceptions import DeltaError

from dictalake import logs, stops
from dictalake.archive.findings import Findings
from dictalake.archive.places import split_place
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive, Config
from dictalake.config.uris import canonical_uri, list_spellings
from dictalake.errors import ArchiveEmpty, ConfigError, RunError
from dictalake.lake.delta import has_table, open_dataset
from dictalake.lake.places import PLACES, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage


def begin_findings(config: Config, archive: Archive) -> Findings:
    """Findings for a listing of ``archive`` that leaves the folders of the lake out. Raises ConfigError where that cannot be:
    the archive is the lake, or lies in a folder of the lake.
    """
    if archive.manifest is not None or config.lake.uri is None:
        return Findings()
    if archive.uri is None:  # an inventory may be of the lake's bucket
        return Findings(lake_folders=_name_folders(config) if archive.inventory is not None else ())
    root, lake = split_place(resolve(archive.uri)), split_place(open_storage(config.lake, "").uri)
    if root is None or lake is None:
        return Findings()
    folders = {(*lake, place.folder) for place in PLACES}
    if root == lake or any(root[: len(folder)] == folder for folder in folders):
        raise ConfigError(
            f"lake.uri = {config.lake.uri}: the archive is {'there too' if root == lake else 'inside of the lake'}, so the "
            "files of the lake would be taken for recordings; give the lake a folder of its own"
        )
    # Elsewhere nothing of it is listed, unless links lead there.
    is_listed = lake[: len(root)] == root or archive.follow_links
    return Findings(lake_folders=_name_folders(config) if is_listed else ())


def check_listing(config: Config, archive: Archive, findings: Findings, *, allow_empty: bool) -> None:
    """Raises ArchiveEmpty where the whole archive lists nothing, and the lake has rows of recordings from there."""
    if findings.holds_lake:
        logs.log_event("listing", "the lake lies inside the archive; the listing leaves the folders of the lake out")
    if allow_empty or archive.uri is None or archive.manifest is not None or findings.has_entries:
        return
    if _knows_recordings(config, archive.uri):
        raise ArchiveEmpty(
            "archive_empty: the archive lists nothing, and the lake holds recordings from there; check that its folder is "
            "mounted and archive.uri is right, or give --allow-empty if all of them were deleted"
        )


def _name_folders(config: Config) -> tuple[str, ...]:
    return tuple(canonical_uri(open_storage(config.lake, place.folder).uri) for place in PLACES)


def _knows_recordings(config: Config, archive_uri: str) -> bool:
    """Whether the lake has a row, under any fingerprint, of an object below ``archive_uri``. Raises RunError."""
    storage = open_storage(config.lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return False
    below = [f"{uri.rstrip('/')}/" for uri in list_spellings(resolve(archive_uri))]
    try:
        uris = open_dataset(storage, TRANSCRIPTS).to_batches(columns={"uri": ds.field("source", "uri")})
        for batch in uris:
            stops.check()
            if any(pc.any(pc.starts_with(batch["uri"], start)).as_py() for start in below):
                return True
        return False
    except (OSError, pa.ArrowException, DeltaError) as error:  # their messages may quote paths
        raise RunError(f"cannot read the lake ({type(error).__name__}); run the same command again") from None
