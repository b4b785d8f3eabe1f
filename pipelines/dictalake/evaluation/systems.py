"""The systems that ``dictalake evaluate`` compares, and what each of them heard."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from rich.console import Console
from rich.progress import track

from dictalake.archive.fetch import fetch
from dictalake.archive.manifest import find_recordings
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.resample import resample_blocks
from dictalake.config.load import with_overrides
from dictalake.config.sections import Archive, Config, Lake
from dictalake.errors import ConfigError, TranscriptionError
from dictalake.evaluation.utterances import Utterance
from dictalake.evaluation.whisper_baseline import Whisper, find_packaged_model
from dictalake.lake.query import open_lake
from dictalake.observers.progress import format_duration
from dictalake.records import Recording

PIPELINE_SYSTEMS = ("greedy", "lm", "hotwords")
SYSTEMS = (*PIPELINE_SYSTEMS, "whisper")
REFERENCE = "reference"

NO_ROW = "no_row"  # another run took the recording on and has not committed it yet


@dataclass(frozen=True)
class Heard:
    """What a system made of one recording: raw text, readable text and confidence, or the reason and detail of its failure."""

    text_raw: str | None = None
    text: str | None = None
    reason: str | None = None
    detail: str | None = None
    confidence: float | None = None


Transcripts = Mapping[str, Mapping[str, Heard]]  # system → recording_id → Heard


def make_systems(config: Config, names: list[str] | None, files: Sequence[tuple[str, str]]) -> dict[str, Config]:
    """The configuration of each system that is a run of the pipeline. Raises ConfigError for one that cannot be."""
    systems = {}
    for name in names or ():
        if name == "hotwords" and config.decoding.hotwords is None:
            raise ConfigError("the system hotwords needs decoding.hotwords: a text file of terms, one a line")
        if name in PIPELINE_SYSTEMS:
            changed = {"kind": "greedy" if name == "greedy" else "beam"}
            kept = config.decoding.hotwords if name == "hotwords" else None
            systems[name] = config.model_copy(
                update={"decoding": config.decoding.model_copy(update={**changed, "hotwords": kept})}
            )
    for name, file in files:
        if name in SYSTEMS or name in systems:
            raise ConfigError(f"--system {name}: the name is taken")
        systems[name] = with_overrides(config, file)
    return systems


def read_references(archive: Archive) -> list[Recording]:
    """The recordings of the manifest. Raises ConfigError where there is none, or no reference in it."""
    if archive.manifest is None:
        raise ConfigError("archive.manifest is missing: give a CSV or Parquet with the columns uri and reference")
    recordings = list(find_recordings(archive))
    if not any(REFERENCE in recording.metadata for recording in recordings):
        raise ConfigError("archive.manifest: no row has a reference; it needs the columns uri and reference")
    return recordings


@contextmanager
def lake_or_temporary(config: Config) -> Iterator[Config]:
    """``config`` with a lake: its own, or one that is gone afterwards."""
    if config.lake.uri is not None:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="dictalake-evaluate-") as folder:
        yield config.model_copy(update={"lake": config.lake.model_copy(update={"uri": folder})})


def run_systems(configs: Mapping[str, Config], recordings: Sequence[Recording]) -> dict[str, dict[str, Heard]]:
    """Transcribes under each of ``configs`` (system → configuration) in one Ray session, and reads the rows from the lake."""
    if not configs:
        return {}
    from dictalake.workflow import cluster
    from dictalake.workflow.run import transcribe

    console = Console(stderr=True)
    transcripts = {}
    with cluster.running_cluster(next(iter(configs.values()))):
        for system, config in configs.items():
            summary = transcribe(config, console)
            has_lm = config.decoding.kind == "greedy" or config.decoding.lm is not None
            without = "" if has_lm else ", without a language model: decoding.lm is null"
            console.print(
                f"{system}: fingerprint {summary.fingerprint}, {summary.ok + summary.failed} transcribed in "
                f"{format_duration(summary.wall_s)}, {summary.skipped} done before{without}",
                highlight=False,
                soft_wrap=True,
            )
            transcripts[system] = read_transcripts(config.lake, summary.fingerprint, recordings)
    return transcripts


def read_transcripts(lake: Lake, fingerprint: str, recordings: Sequence[Recording]) -> dict[str, Heard]:
    """What the lake says about ``recordings`` under ``fingerprint``: the last attempt at each."""
    rows = {row["recording_id"]: row for row in _read_rows(lake, fingerprint)}
    return {recording.recording_id: _make_heard(rows.get(recording.recording_id)) for recording in recordings}


def join_run(lake: Lake, fingerprint: str, recordings: Sequence[Recording]) -> dict[str, Heard]:
    """As ``read_transcripts``, of a run of another day: where the object has another version since, its newest row of the same
    URI. Raises ConfigError where the lake has no row under ``fingerprint``.
    """
    rows = _read_rows(lake, fingerprint)
    if not rows:
        assert lake.uri is not None
        table = open_lake(lake.uri, lake.storage_options).to_table(columns=["fingerprint"])
        known = ", ".join(sorted(set(table["fingerprint"].to_pylist()))) or "none"
        raise ConfigError(f"--run {fingerprint}: the lake has no row with this fingerprint; it has {known}")
    by_id = {row["recording_id"]: row for row in rows}
    by_uri = {row["source"]["uri"]: row for row in rows if row["source"]}
    return {one.recording_id: _make_heard(by_id.get(one.recording_id) or by_uri.get(one.uri)) for one in recordings}


def _read_rows(lake: Lake, fingerprint: str) -> list[dict[str, Any]]:
    """Rows under ``fingerprint``, older versions of an object first, and of each the earlier attempts."""
    assert lake.uri is not None
    columns = ["recording_id", "attempt", "text", "text_raw", "error", "confidence", "source"]
    rows = open_lake(lake.uri, lake.storage_options).to_table(columns=columns, filter=ds.field("fingerprint") == fingerprint)
    return sorted(rows.to_pylist(), key=lambda row: (_modified_s(row), row["attempt"]))


def _modified_s(row: Mapping[str, Any]) -> float:
    modified_at = row["source"] and row["source"]["modified_at"]
    return modified_at.timestamp() if modified_at else 0.0


def _make_heard(row: Mapping[str, Any] | None) -> Heard:
    if row is None:
        return Heard(reason=NO_ROW, detail="the lake has no row of this recording")
    error = row["error"] or {"reason": None, "detail": None}
    return Heard(row["text_raw"], row["text"], error["reason"], error["detail"], row["confidence"])


def run_whisper(recordings: Sequence[Recording], config: Config, folder: Path | None) -> dict[str, Heard]:
    whisper = Whisper(folder or find_packaged_model(), config.acoustic.device)
    heard = {}
    console = Console(stderr=True)
    for recording in track(recordings, "whisper", console=console, disable=not console.is_terminal):
        try:
            text = whisper.transcribe(_read_waveforms(recording, config))
            heard[recording.recording_id] = Heard(text, text)
        except TranscriptionError as error:
            heard[recording.recording_id] = Heard(reason=error.reason, detail=error.detail)
    return heard


def make_utterances(recordings: Sequence[Recording], heard: Mapping[str, Heard]) -> list[Utterance]:
    """The recordings that have a reference, with what was heard; a failed one has no hypothesis."""
    return [
        Utterance(
            recording.recording_id,
            recording.metadata[REFERENCE],
            None if heard[recording.recording_id].reason else heard[recording.recording_id].text_raw or "",
            recording.metadata,
            heard[recording.recording_id].confidence,
        )
        for recording in recordings
        if REFERENCE in recording.metadata
    ]


def make_finder(recordings: Sequence[Recording], config: Config) -> Callable[[str], np.ndarray | None]:
    """What gives the first channel of a recording by its id, int16 at 16 kHz; None where it cannot be read."""
    by_id = {recording.recording_id: recording for recording in recordings}

    def find(recording_id: str) -> np.ndarray | None:
        try:
            waveform: np.ndarray = _read_waveforms(by_id[recording_id], config)[0]
        except TranscriptionError:
            return None
        return waveform

    return find


def _read_waveforms(recording: Recording, config: Config) -> np.ndarray:
    data = fetch(recording, config.archive, limits=config.limits)
    return read_audio(data, recording.recording_id, config.limits, consume=resample_blocks).samples
