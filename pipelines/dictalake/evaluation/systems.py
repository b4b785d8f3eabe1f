"""The systems that ``dictalake evaluate`` compares, and the output of each.

An archive object (ZIP, TAR, gzip) in the manifest counts as one recording. Its output is the text of all files in it, in the
order of their names. If one of the files failed, the recording failed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from rich.console import Console
from rich.progress import track

from dictalake.archive.load_recording import load_recording
from dictalake.archive.manifest import find_recordings
from dictalake.audio.load import AudioLoader
from dictalake.config.load import with_overrides
from dictalake.config.sections import Archive, Config, Lake
from dictalake.errors import ConfigError, TranscriptionError
from dictalake.evaluation.utterances import Utterance
from dictalake.evaluation.whisper_baseline import Whisper, find_packaged_model
from dictalake.lake.query import open_lake
from dictalake.observers.progress import format_duration
from dictalake.records import Recording

# Of the decoder: no search, a search that keeps one beam, and the search of the configuration.
_CHANGES: dict[str, dict[str, Any]] = {
    "greedy": {"kind": "greedy"},
    "greedy-lm": {"kind": "beam", "beam_width": 1, "nbest": 1},
    "lm": {"kind": "beam"},
    "hotwords": {"kind": "beam"},
}
PIPELINE_SYSTEMS = tuple(_CHANGES)
SYSTEMS = (*PIPELINE_SYSTEMS, "whisper")
REFERENCE = "reference"

NO_ROW = "no_row"  # another run is working on the recording and has not committed it yet


@dataclass(frozen=True)
class SystemOutput:
    """The output for one recording: raw text, readable text and confidence, or the reason and detail of the failure."""

    text_raw: str | None = None
    text: str | None = None
    reason: str | None = None
    detail: str | None = None
    confidence: float | None = None


Transcripts = Mapping[str, Mapping[str, SystemOutput]]  # system → recording_id → SystemOutput


def make_systems(config: Config, names: list[str] | None, files: Sequence[tuple[str, str]]) -> dict[str, Config]:
    """The configuration of each system that is a run of the pipeline. Raises ConfigError for one that cannot run."""
    systems = {}
    for name in names or ():
        if name == "hotwords" and config.decoding.hotwords is None:
            raise ConfigError("the system hotwords needs decoding.hotwords: a text file with one term on each line")
        if name in PIPELINE_SYSTEMS:
            kept = config.decoding.hotwords if name == "hotwords" else None
            systems[name] = config.model_copy(
                update={"decoding": config.decoding.model_copy(update={**_CHANGES[name], "hotwords": kept})}
            )
    for name, file in files:
        if name in SYSTEMS or name in systems:
            raise ConfigError(f"--system {name}: another system has this name; choose a different one")
        systems[name] = with_overrides(config, file)
    return systems


def read_references(archive: Archive) -> list[Recording]:
    """The recordings of the manifest. Raises ConfigError without a manifest, or without any reference in it."""
    if archive.manifest is None:
        raise ConfigError("archive.manifest is not set; give a CSV or Parquet file with the columns uri and reference")
    recordings = list(find_recordings(archive))
    if not any(REFERENCE in recording.metadata for recording in recordings):
        raise ConfigError("archive.manifest: no row has a reference; it needs the columns uri and reference")
    return recordings


@contextmanager
def lake_or_temporary(config: Config) -> Iterator[Config]:
    """``config`` with a lake: its own if it has one, else a temporary one."""
    if config.lake.uri is not None:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="dictalake-evaluate-") as folder:
        yield config.model_copy(update={"lake": config.lake.model_copy(update={"uri": folder})})


def run_systems(configs: Mapping[str, Config], recordings: Sequence[Recording]) -> dict[str, dict[str, SystemOutput]]:
    """Transcribes with each of ``configs`` (system → configuration) in one Ray session, and reads the rows from the lake."""
    if not configs:
        return {}
    from dictalake.workflow import cluster
    from dictalake.workflow.run import transcribe

    console = Console(stderr=True)
    transcripts = {}
    with cluster.running_cluster(next(iter(configs.values()))):
        for system, config in configs.items():
            summary = transcribe(config, console, on_new="pass")
            has_lm = config.decoding.kind == "greedy" or config.decoding.lm is not None
            without = "" if has_lm else ", without a language model: decoding.lm is null"
            console.print(
                f"{system}: fingerprint {summary.fingerprint}, {summary.ok + summary.failed} transcribed in "
                f"{format_duration(summary.wall_s)}, {summary.skipped} done before{without}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            transcripts[system] = read_transcripts(config.lake, summary.fingerprint, recordings)
    return transcripts


def read_transcripts(lake: Lake, fingerprint: str, recordings: Sequence[Recording]) -> dict[str, SystemOutput]:
    """The outputs for ``recordings`` that the lake holds under ``fingerprint``, from the last attempt at each."""
    outputs = _group_outputs(_read_rows(lake, fingerprint))
    return {one.recording_id: _join_outputs(outputs.get(one.recording_id, [])) for one in recordings}


def join_run(lake: Lake, fingerprint: str, recordings: Sequence[Recording]) -> dict[str, SystemOutput]:
    """As ``read_transcripts``, for an earlier run. If the object has changed since, it takes the newest row of the same URI.

    Raises ConfigError if the lake has no row under ``fingerprint``.
    """
    rows = _read_rows(lake, fingerprint)
    if not rows:
        assert lake.uri is not None
        table = open_lake(lake.uri, lake.storage_options).to_table(columns=["fingerprint"])
        known = ", ".join(sorted(set(table["fingerprint"].to_pylist()))) or "none"
        raise ConfigError(f"--run {fingerprint}: the lake has no row with this fingerprint; it has {known}")
    outputs = _group_outputs(rows)
    newest = {uri: _object_of(row) for row in rows for uri in _uris_of_object(row)}
    found = {one.recording_id: outputs.get(one.recording_id) or outputs.get(newest.get(one.uri, ""), []) for one in recordings}
    return {recording_id: _join_outputs(of_object) for recording_id, of_object in found.items()}


def _read_rows(lake: Lake, fingerprint: str) -> list[dict[str, Any]]:
    """The rows under ``fingerprint``. Older versions of an object come first, and so do earlier attempts."""
    assert lake.uri is not None
    columns = ["recording_id", "attempt", "text", "text_raw", "error", "confidence", "source", "archive_id", "archive_rows"]
    rows = open_lake(lake.uri, lake.storage_options).to_table(columns=columns, filter=ds.field("fingerprint") == fingerprint)
    return sorted(rows.to_pylist(), key=lambda row: (_modified_s(row), row["attempt"]))


def _group_outputs(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[SystemOutput]]:
    """Id of an archive's object → the outputs of the last attempts at the recordings in it, in the order of their URIs."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_object_of(row), {})[row["recording_id"]] = row
    return {
        object_id: [_make_output(row) for row in sorted(_drop_outdated(object_id, group), key=_uri_of)]
        for object_id, group in groups.items()
    }


def _drop_outdated(object_id: str, group: Mapping[str, Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Drops an archive object's own row if all its files were read later, for example after the storage had not answered.

    A row of its own from the same reading stays: it says that part of the object is damaged (``same_look`` in worklist.sql).
    """
    members = [row for recording_id, row in group.items() if recording_id != object_id]
    expected = max((row["archive_rows"] or 0 for row in members), default=0)
    own = group.get(object_id)
    if own is None or not members or own["archive_rows"] == expected or len(members) < expected:
        return group.values()
    return members


def _object_of(row: Mapping[str, Any]) -> str:
    """The id of the archive's object that the row comes from."""
    return str(row["archive_id"] or row["recording_id"])


def _uris_of_object(row: Mapping[str, Any]) -> Iterator[str]:
    """The possible URIs of the object: for ``a.zip#b#1.wav``, ``a.zip`` and ``a.zip#b``, since names may hold a ``#`` too."""
    uri = _uri_of(row)
    if _object_of(row) == row["recording_id"]:
        yield uri
        return
    while "#" in uri:
        uri = uri.rpartition("#")[0]
        yield uri


def _uri_of(row: Mapping[str, Any]) -> str:
    return (row["source"] or {}).get("uri") or ""


def _join_outputs(outputs: Sequence[SystemOutput]) -> SystemOutput:
    """The output for one object, from the outputs for the recordings in it."""
    if not outputs:
        return SystemOutput(reason=NO_ROW, detail="the lake has no row of this recording")
    if len(outputs) == 1:
        return outputs[0]
    for output in outputs:
        if output.reason is not None:
            return output
    confidences = [output.confidence for output in outputs if output.confidence is not None]
    return SystemOutput(
        " ".join(filter(None, (output.text_raw for output in outputs))),
        " ".join(filter(None, (output.text for output in outputs))),
        confidence=sum(confidences) / len(confidences) if confidences else None,
    )


def _modified_s(row: Mapping[str, Any]) -> float:
    modified_at = row["source"] and row["source"]["modified_at"]
    return modified_at.timestamp() if modified_at else 0.0


def _make_output(row: Mapping[str, Any]) -> SystemOutput:
    error = row["error"] or {"reason": None, "detail": None}
    return SystemOutput(row["text_raw"], row["text"], error["reason"], error["detail"], row["confidence"])


def run_whisper(recordings: Sequence[Recording], config: Config, folder: Path | None) -> dict[str, SystemOutput]:
    """Transcribes in this process with the Whisper model in ``folder``, by default the packaged one."""
    whisper = Whisper(folder or find_packaged_model(), config.acoustic.device)
    console = Console(stderr=True)
    shown = track(recordings, "whisper", total=len(recordings), console=console, disable=not console.is_terminal)
    return transcribe_here(whisper.transcribe, shown, config)


def transcribe_here(
    transcribe: Callable[[np.ndarray], str], recordings: Iterable[Recording], config: Config
) -> dict[str, SystemOutput]:
    """What ``transcribe`` returns for each recording, read as a run reads it: int16 ``(channels, samples)`` at 16 kHz."""
    loader = AudioLoader(config)
    joined = {}
    for recording in recordings:
        outputs: dict[str, SystemOutput] = {}
        for inside, loaded in load_recording(recording, config, loader):
            if isinstance(loaded, TranscriptionError):
                outputs[inside.uri] = SystemOutput(reason=loaded.reason, detail=loaded.detail)
            else:
                text = transcribe(loaded.waveforms)
                outputs[inside.uri] = SystemOutput(text, text)
        joined[recording.recording_id] = _join_outputs([outputs[uri] for uri in sorted(outputs)])
    return joined


def make_utterances(recordings: Sequence[Recording], outputs: Mapping[str, SystemOutput]) -> list[Utterance]:
    """The recordings that have a reference, with the system's output. A failed one has no hypothesis."""
    return [
        Utterance(
            recording.recording_id,
            recording.metadata[REFERENCE],
            None if outputs[recording.recording_id].reason else outputs[recording.recording_id].text_raw or "",
            recording.metadata,
            outputs[recording.recording_id].confidence,
        )
        for recording in recordings
        if REFERENCE in recording.metadata
    ]


def make_finder(recordings: Sequence[Recording], config: Config) -> Callable[[str], np.ndarray | None]:
    """A function from a recording's id to its first channel, int16 at 16 kHz, or None if it cannot be read.

    An archive object with several files gives None, since its text belongs to several waveforms.
    """
    by_id = {recording.recording_id: recording for recording in recordings}
    loader = AudioLoader(config)

    def find(recording_id: str) -> np.ndarray | None:
        with closing(load_recording(by_id[recording_id], config, loader)) as files:
            found = [loaded for _, loaded in islice(files, 2)]
        if len(found) != 1 or isinstance(found[0], TranscriptionError):
            return None
        waveform: np.ndarray = found[0].waveforms[0]
        return waveform

    return find
