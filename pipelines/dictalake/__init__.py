"""Transcribes archives of medical dictations into a Delta lake, and reads that lake.

    import dictalake

    summary = dictalake.transcribe("./dictations", "./lake")
    dictalake.connect("./lake").sql("SELECT recording_id, text FROM transcripts").df()

Importing dictalake is cheap: each function imports what it needs when it is called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from dictalake.config.sections import Config
    from dictalake.workflow.summary import RunSummary

    __version__: str

__all__ = ["__version__", "connect", "load_config", "transcribe"]


def connect(lake: str | Path, **storage_options: str) -> duckdb.DuckDBPyConnection:
    """Opens the lake for SQL. The connection reads the views and nothing else: no files, no network.

    The views are ``transcripts`` (one row for each current recording, as promoted), ``recordings`` (all of them in flat
    columns), ``transcript_words``, ``transcript_sections``, ``incomplete`` (transcripts that lack sound), ``failures``,
    ``rechecks``, ``runs``, ``promotions``, ``superseded``, ``corrections`` (what people changed) and ``history`` (every row),
    as the lake is now; and of what a language model found ``findings``, ``medications``, ``lab_values``, ``follow_ups``,
    ``impressions`` and ``extractions``.
    ``storage_options`` are those of ``lake.storage_options``.
    Times are in UTC. Raises ConfigError for a bad location or option, RunError where there is no lake or it cannot be
    reached.

        lake = dictalake.connect("gs://my-hospital-lake/speech")
        lake.sql("SELECT recorded_month, count(*) FROM transcripts GROUP BY ALL").df()

    Take the result with ``.df()`` (pandas), ``.pl()`` (Polars), ``.arrow()`` or ``.fetchall()``.
    """
    from dictalake.lake.query import connect_locked

    return connect_locked(str(lake), storage_options)


def transcribe(archive: str | Path, lake: str | Path, config: str | Path | None = None, **keys: Any) -> RunSummary:
    """Transcribes what is in ``archive`` and not yet in ``lake``, and returns the summary of the run.

    ``config`` and ``keys`` are those of ``load_config``. Raises ConfigError for a key or a value that does not exist, and
    RunError where the run cannot start or go on. A recording that fails raises nothing: the summary counts it, and the view
    ``failures`` says why it failed. Run the same call again to resume.

        summary = dictalake.transcribe("./dictations", "./lake", acoustic_device="cpu", ray_cpus=4)
        print(summary.ok, "transcribed,", summary.failed, "failed")
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if twice := keys.keys() & {"archive_uri", "lake_uri"}:
        from dictalake.errors import ConfigError

        raise ConfigError(f"{', '.join(sorted(twice))}: the first two arguments say this already; leave it out")
    loaded = load_config(config, **keys, archive_uri=archive, lake_uri=lake)
    from dictalake import logs
    from dictalake.workflow.run import transcribe as run

    if loaded.logs.format != "text" or loaded.logs.file is not None:
        logs.set_up("transcribe", loaded.logs.format, loaded.logs.file)
    return run(loaded, job="transcribe", allow_empty=True)


def load_config(path: str | Path | None = None, **keys: Any) -> Config:
    """Reads a configuration: the file ``path``, then the environment, then ``keys``; later values win.

    ``path`` is a YAML file or the name of one that ships with dictalake (``medasr``, ``whisper``). A key is written as its
    section, an underscore and its name: ``acoustic.device`` is ``acoustic_device``. Raises ConfigError that names the key,
    what was given and what is allowed.

        config = dictalake.load_config("medasr", acoustic_device="cpu", limits_duration_h=2)
        config.acoustic.device
    """
    from dictalake.config import load
    from dictalake.errors import ConfigError

    overrides = [(name.replace("_", ".", 1), _to_text(value)) for name, value in keys.items()]
    try:
        return load.load_config(path, overrides)
    except ConfigError as error:
        raise ConfigError(str(error).replace("the command line", "the call")) from None


def _to_text(value: Any) -> str:
    """The value as YAML would have it on a command line; text and paths as they are."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    import json

    return json.dumps(value, default=str)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("dictalake")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
