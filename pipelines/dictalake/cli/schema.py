"""The schema of a lake's tables as Markdown, JSON and BigQuery's SQL, its check against the contract, and its upgrade.

A new version of the schema only adds columns, and they may be null. So a newer dictalake reads an older lake, and an older one
a newer lake, from version 5 on: versions 1 to 4 refuse the lake of any other version. To write, the versions must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import DeltaError

from dictalake.config.locations import PACKAGE
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake import bigquery, contract
from dictalake.lake.delta import find_missing, has_table, open_table, upgrade_table
from dictalake.lake.delta_log import clean_log
from dictalake.lake.schema import SCHEMA_VERSION
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.views import RECORDINGS

# As in infra/kubernetes and infra/terraform: everybody puts their own there.
_LAKE, _REGION = "gs://my-hospital-lake/speech", "europe-west3"
INFRA = PACKAGE.parents[1] / "infra"
_TITLES = {
    "transcripts": "One row for each recording, fingerprint and attempt. In SQL it is `history`; the view `transcripts` has "
    "one row for each current recording.",
    "runs": "One row when a run starts and one when it ends. In SQL it is `run_records`; the view `runs` has a row per run.",
    "rechecks": "One row for each row of a recording that `dictalake recheck` compared with what is read today. In SQL it is "
    "`recheck_records`; the view `rechecks` is the newest for each row.",
    "fingerprints": "One row when a fingerprint is first used, promoted or renamed. In SQL it is `fingerprint_records`; the "
    "view `promotions` has a row for each promoted one.",
    "superseded": "One row for each recording that a newer version of its URI replaced, as runs wrote it down at their end. In "
    "SQL, the view `superseded`, and the columns `is_current` and `superseded_by` of `history`, are always up to date.",
    "corrections": "One row for each thing that a person did to a recording in `dictalake review`. In SQL it is "
    "`correction_records`; the view `corrections` has what counts of each recording, and `transcripts` shows it too.",
    "accesses": "One row for each recording that a person opened in `dictalake review`, and when. In SQL it is "
    "`access_records`.",
    "findings": "One row for each extraction from a transcript by a language model, its items in lists. In SQL it is "
    "`finding_rows`; the view `extractions` has a row for each current transcript, and the views `findings`, `medications`, "
    "`lab_values`, `follow_ups` and `impressions` one for each item.",
    "embeddings": "One row for each passage of a transcript that `dictalake embed` gave a vector. `dictalake search "
    "--by-meaning` reads it; it is no view in SQL.",
    "erasures": "One row for each hash of what `dictalake forget` erased and keeps out.",
}


def render_markdown() -> str:
    """Every table with its columns: name, type, since which version, what it means."""
    lines = [
        "# What the columns of a lake mean",
        "",
        f"Version {SCHEMA_VERSION}. Written by `dictalake schema --write` from `lake/schema.py`, whose words these "
        "are; `schema.json` is the same for machines, in Delta Lake's own words. The tables are Delta tables below `lake.uri`; "
        "each keeps its version in the table property `dictalake.schemaVersion`.",
        "",
        "A new version only adds columns, and they may be null: a newer dictalake reads an older lake, and an older one a "
        f"newer lake, from version {contract.FORWARD_COMPATIBLE_SINCE} on; older ones refuse the lake of any other version. To "
        "write, the versions must be the same; `dictalake schema --upgrade --lake.uri LAKE` adds to an older lake what it "
        "lacks.",
        "",
        "Times are UTC. A dot leads into a struct; `words.start_s` is in each element of the list `words`. **Bold**: never "
        "null.",
    ]
    for name in contract.TABLES:
        lines += ["", f"## {name}", "", _TITLES[name], ""]
        if partitions := contract.TABLES[name].partitions:
            lines += [f"Partitioned by {' and '.join(f'`{column}`' for column in partitions)}.", ""]
        lines += ["| column | type | since | |", "| --- | --- | --- | --- |", *_rows(name)]
    lines += ["", "## The view recordings", "", "One row for each current recording, transcribed or not.", ""]
    lines += ["| column | |", "| --- | --- |", *(f"| `{name}` | {doc} |" for name, doc in RECORDINGS.items())]
    return "\n".join(lines) + "\n"


def _rows(table: str) -> Iterator[str]:
    for column in contract.list_columns(table):
        name = f"**`{column.path}`**" if column.is_required else f"`{column.path}`"
        yield f"| {name} | `{column.kind}` | {column.since} | {column.doc.replace('|', chr(92) + '|')} |"


def render_json() -> str:
    return json.dumps(contract.describe(), indent=1) + "\n"


def _documents(folder: Path) -> dict[Path, str]:
    return {
        folder / "schema.md": render_markdown(),
        folder / "schema.json": render_json(),
        folder / "bigquery/tables.sql": bigquery.make_tables(_LAKE, _REGION),
        folder / "bigquery/descriptions.sql": bigquery.make_descriptions(),
        **{folder / f"bigquery/views/{name}.sql": text for name, text in bigquery.make_views().items()},
    }


def check(folder: Path) -> Iterator[str]:
    """One line for each file in ``folder`` that is not current, and each way in which the schema breaks its contract."""
    for path, text in _documents(folder).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield f"{path.relative_to(folder)} is not current: run dictalake schema --write and commit what it writes"
    yield from contract.find_breaks(contract.TABLES, contract.read_snapshots(), SCHEMA_VERSION)


def write(folder: Path) -> Iterator[Path]:
    """Writes what is documented, and the snapshot of a version that has none yet; one that is there is never written again.

    Raises ConfigError where there is no checkout.
    """
    if not folder.is_dir():
        raise ConfigError("--write is for a checkout of dictalake, which has the folder infra; without it, it is printed")
    snapshot = contract.snapshot_path(SCHEMA_VERSION)
    documents = _documents(folder)
    if not snapshot.exists():
        documents[snapshot] = json.dumps(contract.make_snapshot(), separators=(",", ":")) + "\n"
    for path, text in documents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        yield path


def upgrade(lake: Lake) -> Iterator[str]:
    """Brings each table that is there to this version, and says what was added. Raises RunError, and changes nothing then where
    one of them cannot be upgraded.
    """
    storages = {name: open_storage(lake, name) for name in contract.TABLES}
    storages = {name: storage for name, storage in storages.items() if has_table(storage)}
    if not storages:
        raise RunError("there is no dictalake table at lake.uri: check it, or run a backfill first")
    for name, storage in storages.items():
        find_missing(storage, contract.TABLES[name].schema)
    for name, storage in storages.items():
        yield f"{name}: {_upgrade(storage, contract.TABLES[name].schema)}; version {SCHEMA_VERSION}"


def _upgrade(storage: Storage, schema: pa.Schema) -> str:
    added = upgrade_table(storage, schema)
    text = f"added {', '.join(added)}" if added else "nothing to add"
    try:
        log = clean_log(open_table(storage, schema), storage, schema)
    except (OSError, DeltaError) as error:
        raise RunError(f"cannot clean the log at {storage.uri}: {type(error).__name__}; run the same command again") from error
    if log.cleaned:
        text += f"; {log.cleaned} files of its log cleaned of values of rows"
    if log.left:
        text += f"; {log.left} more are not, because a run was at work: run the same command again when none is"
    return text
