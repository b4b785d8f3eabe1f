"""The Arrow columns that travel between the stages, and how records go in and out of them.

Waveforms and emissions are ``large_binary`` (a block of them passes 2 GB easily) and are read back without a copy.
A stage drops the columns that no later stage needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.records import SAMPLE_RATE_HZ, Emissions, Hypothesis, Piece, Recording, Word
from dictalake.workflow.stages.base import error_row

_TEXT_MAP = pa.map_(pa.string(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")

ERROR = pa.struct(
    {"stage": pa.string(), "reason": pa.string(), "detail": pa.string(), "retryable": pa.bool_()}  # as in the lake
)
RECORDING_COLUMNS = {
    "recording_id": pa.string(),
    "uri": pa.string(),
    "version": pa.string(),
    "size_bytes": pa.int64(),
    "modified_at": _TIME,
    "metadata": _TEXT_MAP,
    "attempt": pa.int32(),
    "archive_id": pa.string(),
    "archive_rows": pa.int32(),
    "done_members": pa.list_(pa.string()),
    "member_attempts": pa.map_(pa.string(), pa.int32()),
    "ending": pa.string(),
    "error": ERROR,  # of what is not to be read at all
}
LOADED_COLUMNS = {
    "error": ERROR,
    "sha256": pa.string(),
    "format": pa.struct(
        {
            "container": pa.string(),
            "codec": pa.string(),
            "sample_rate_hz": pa.int32(),
            "channels": pa.int32(),
            "bits_per_sample": pa.int32(),
            "tracks": pa.list_(pa.int32()),
        }
    ),
    "loader": pa.int32(),
    "dicom": _TEXT_MAP,  # the patient's fields in it are hashes
    "content_datetime": _TIME,
    "duration_s": pa.float64(),
    "clipped_ratio": pa.float32(),
    "level_dbfs": pa.float32(),
    "dc_offset": pa.float32(),
    "lost_s": pa.float64(),
    "repairs": pa.list_(pa.string()),
    "speech_s": pa.float64(),
    "speech": pa.list_(pa.list_(pa.float64())),  # for each channel: start, end, start, end … in seconds
    "load_ms": pa.float32(),
    "retries": pa.int32(),  # repeated requests for the object
}
WAVEFORMS = {"waveforms": pa.list_(pa.large_binary())}
EMITTED_COLUMNS = {"device": pa.string(), "dtype": pa.string(), "emit_ms": pa.float32()}
EMISSIONS = {
    "emissions": pa.list_(
        pa.struct(
            {
                "frames": pa.int32(),
                "vocabulary_size": pa.int32(),
                "frame_index": pa.large_binary(),
                "offsets": pa.large_binary(),
                "token_ids": pa.large_binary(),
                "logp": pa.large_binary(),
            }
        )
    )
}
DECODED_COLUMNS = {"decode_ms": pa.float32()}
HYPOTHESES = {
    "hypotheses": pa.list_(
        pa.struct(
            {
                "token_ids": pa.list_(pa.int32()),
                "pieces": pa.list_(pa.string()),
                "start_frames": pa.list_(pa.int32()),
                "end_frames": pa.list_(pa.int32()),
                "logp": pa.list_(pa.float32()),
                "posterior": pa.list_(pa.float32()),
                "acoustic_score": pa.float64(),
                "lm_score": pa.float64(),
                "hotword_score": pa.float64(),
            }
        )
    )
}
# For each channel the words of an engine that gives text itself
RECOGNIZED = {
    "recognized_words": pa.list_(
        pa.list_(
            pa.struct(
                {"word": pa.string(), "start_s": pa.float64(), "end_s": pa.float64(), "confidence": pa.float32()}  # may be null
            )
        )
    )
}
# For each channel the hypotheses after the best, where decoding.nbest asks for them
ALTERNATIVES = {"alternatives": pa.list_(HYPOTHESES["hypotheses"])}


def recordings_to_table(recordings: Sequence[Recording]) -> pa.Table:
    """One row a recording, in order."""
    rows = [
        {
            "recording_id": r.recording_id,
            "uri": r.uri,
            "version": r.version,
            "size_bytes": r.size_bytes,
            "modified_at": r.modified_at,
            "metadata": list(r.metadata.items()),
            "attempt": r.attempt,
            "archive_id": r.archive_id,
            "archive_rows": r.archive_rows,
            "done_members": r.done_members or None,
            "member_attempts": list(r.member_attempts.items()) or None,
            "ending": r.ending,
            "error": None if r.error is None else error_row(r.error),
        }
        for r in recordings
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(RECORDING_COLUMNS))


def table_to_recordings(table: pa.Table) -> list[Recording]:
    """The recordings of a block's rows, without their errors, which a stage takes from the column."""
    rows = table.select([name for name in RECORDING_COLUMNS if name != "error"]).to_pylist()
    for row in rows:
        row["done_members"] = tuple(row["done_members"] or ())
        row |= {name: dict(row[name] or ()) for name in ("metadata", "member_attempts")}
    return [Recording(**row) for row in rows]


def extend(
    table: pa.Table, columns: dict[str, pa.DataType], rows: Sequence[dict[str, Any]], drop: Iterable[str] = ()
) -> pa.Table:
    """``table`` with ``columns`` set from ``rows`` (one dict a row; absent keys are null), without the columns in ``drop``."""
    table = table.drop_columns([name for name in {*drop, *columns} if name in table.column_names])
    for name, kind in columns.items():
        table = table.append_column(pa.field(name, kind), pa.array([row.get(name) for row in rows], type=kind))
    return table


def append_waveforms(table: pa.Table, rows: Sequence[Sequence[np.ndarray]]) -> pa.Table:
    """``table`` with the column ``waveforms``: for each row its channels, int16 ``(samples,)``.

    They are copied once, and not at all where they lie one behind the other: the channels of one long recording.
    """
    channels = [np.ascontiguousarray(channel, dtype=np.int16) for row in rows for channel in row]
    ends = np.cumsum([0, *(channel.nbytes for channel in channels)], dtype=np.int64)
    values = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(channels), [None, pa.py_buffer(ends), _join_channels(channels)]
    )
    offsets = pa.array(np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32))
    return table.append_column(pa.field("waveforms", WAVEFORMS["waveforms"]), pa.ListArray.from_arrays(offsets, values))


def _join_channels(channels: list[np.ndarray]) -> pa.Buffer:
    first_at = channels[0].ctypes.data if channels else 0
    ends = np.cumsum([0, *(channel.nbytes for channel in channels)])
    if channels and all(channel.ctypes.data == first_at + end for channel, end in zip(channels, ends, strict=False)):
        return pa.foreign_buffer(first_at, int(ends[-1]), base=channels)
    return pa.py_buffer(np.concatenate(channels) if channels else np.empty(0, dtype=np.int16))


def read_waveforms(table: pa.Table, row: int) -> list[np.ndarray]:
    """The channels of one row as int16 ``(samples,)`` views on the block's memory; none where the row has no list."""
    column = table["waveforms"]
    for chunk in column.iterchunks():
        if row < len(chunk):
            break
        row -= len(chunk)
    else:
        raise IndexError("no such row")
    channels, ends = chunk.values, chunk.offsets
    first, last = channels.offset + ends[row].as_py(), channels.offset + ends[row + 1].as_py()
    if first == last or not chunk[row].is_valid:
        return []
    # Through the buffers: a scalar of Arrow copies its bytes.
    _, places, bytes_ = channels.buffers()
    samples = np.frombuffer(bytes_, dtype=np.int16) if bytes_ is not None and bytes_.size else np.empty(0, dtype=np.int16)
    cuts = np.frombuffer(places, dtype=np.int64)[first : last + 1] // samples.itemsize
    return [samples[start:end] for start, end in pairwise(cuts)]


def group_by_audio(table: pa.Table, indices: Iterable[int], most_s: float) -> Iterator[list[int]]:
    """Groups of rows for one pass of a model: at most ``most_s`` seconds over all channels, except for a single longer row."""
    group: list[int] = []
    samples = 0
    for index in indices:
        length = sum(len(waveform) for waveform in read_waveforms(table, index))
        if group and samples + length > most_s * SAMPLE_RATE_HZ:
            yield group
            group, samples = [], 0
        group.append(index)
        samples += length
    if group:
        yield group


def emissions_to_row(emissions: Emissions) -> dict[str, Any]:
    """One channel's emissions as a struct of the column ``emissions``."""
    return {
        "frames": emissions.frames,
        "vocabulary_size": emissions.vocabulary_size,
        "frame_index": emissions.frame_index.astype(np.int32).tobytes(),
        "offsets": emissions.offsets.astype(np.int32).tobytes(),
        "token_ids": emissions.token_ids.astype(np.uint16).tobytes(),
        "logp": emissions.logp.astype(np.float16).tobytes(),
    }


def read_emissions(table: pa.Table, row: int) -> list[Emissions]:
    """The channels of one row, as views on the block's memory."""
    kinds = {"frame_index": np.int32, "offsets": np.int32, "token_ids": np.uint16, "logp": np.float16}
    return [
        Emissions(
            frames=channel["frames"].as_py(),
            vocabulary_size=channel["vocabulary_size"].as_py(),
            **{name: np.frombuffer(channel[name].as_buffer(), dtype=kind) for name, kind in kinds.items()},
        )
        for channel in table["emissions"][row].values
    ]


def hypothesis_to_row(hypothesis: Hypothesis) -> dict[str, Any]:
    """One channel's best hypothesis as a struct of the column ``hypotheses``."""
    pieces = hypothesis.pieces
    return {
        "token_ids": [piece.token_id for piece in pieces],
        "pieces": [piece.text for piece in pieces],
        "start_frames": [piece.start_frame for piece in pieces],
        "end_frames": [piece.end_frame for piece in pieces],
        "logp": [piece.logp for piece in pieces],
        "posterior": [piece.posterior for piece in pieces],
        "acoustic_score": hypothesis.acoustic_score,
        "lm_score": hypothesis.lm_score,
        "hotword_score": hypothesis.hotword_score,
    }


def row_to_hypothesis(row: dict[str, Any]) -> Hypothesis:
    """The hypothesis that ``hypothesis_to_row`` wrote."""
    columns = (row["token_ids"], row["pieces"], row["start_frames"], row["end_frames"], row["logp"], row["posterior"])
    pieces = tuple(Piece(*values) for values in zip(*columns, strict=True))
    return Hypothesis(pieces, row["acoustic_score"], row["lm_score"], row["hotword_score"])


def words_to_row(channels: Sequence[Sequence[Word]]) -> list[list[dict[str, Any]]]:
    """The words of each channel as a value of the column ``recognized_words``."""
    names = ("word", "start_s", "end_s", "confidence")
    return [[{name: getattr(word, name) for name in names} for word in words] for words in channels]


def row_to_words(row: Sequence[Sequence[dict[str, Any]]]) -> list[list[Word]]:
    """The words of each channel that ``words_to_row`` wrote."""
    return [[Word(**word, channel=channel) for word in words] for channel, words in enumerate(row)]
