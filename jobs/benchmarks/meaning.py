"""Measures search by meaning with the real small encoder: seconds and memory over many transcripts, and ten questions.

    python -m jobs.benchmarks meaning --out FILE.json [--rows 100000] [--encoded 2000]

The lake holds the texts of the demo archive and synthetic dictations. ``--encoded`` of those are encoded, which is timed. The
others have the texts of 5,000 and a vector of one of the encoded with a little noise: only their number matters. The questions
(tests/demo_texts.py) share no content word with the sentence that they look for. One process of its own asks them; memory is
its peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from dictalake.cli.tables import print_lines
from dictalake.config.embedding import Embedding
from dictalake.config.sections import Lake
from dictalake.embedding.embed import embed_lake, encode_question, make_encoder
from dictalake.embedding.encoder import TextEncoder
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import open_dataset
from dictalake.lake.embeddings import EmbeddingTable, find_nearest
from dictalake.lake.places import EMBEDDINGS_FOLDER
from dictalake.lake.schema import EMBEDDINGS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from dictalake.training.dictation import Corpus, write_dictations
from dictalake.transcript.formatting import format_text
from jobs.benchmarks.__main__ import write_result
from tests.demo_texts import make_demo_rows
from tests.lake_rows import make_row
from tests.meaning_questions import FIRST

_BLOCK = 5_000  # rows
_NOISE = 0.02
_SEARCH = "--search-in"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmarks meaning", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--encoded", type=int, default=2_000)
    parser.add_argument("--out", type=Path, help="write the figures to this file too")
    parser.add_argument(_SEARCH, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.search_in:
        print(json.dumps(search(Lake.model_validate({"uri": str(arguments.search_in)}))))
        return 0
    with TemporaryDirectory() as folder:
        lake = Lake.model_validate({"uri": f"{folder}/lake"})
        figures = fill(lake, arguments.rows, arguments.encoded)
        command = [sys.executable, "-m", "jobs.benchmarks", "meaning", _SEARCH, str(lake.uri)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    result = {**figures, **found}
    for name, value in result.items():
        print_lines(Console(), f"{name}: {value}")
    write_result(result, arguments.out)
    return 0


def fill(lake: Lake, count: int, encoded: int) -> dict[str, Any]:
    """Makes the lake; returns what encoding took."""
    encoder = TextEncoder(Embedding())  # type: ignore[call-arg]
    dictations = write_dictations(Corpus.load(), 1, count, held_out=False)
    put(lake, [*make_demo_rows(), *(make_dictation(one.id, one.text) for one in islice(dictations, encoded))])
    started = time.perf_counter()
    done = embed_lake(lake, encoder)
    took_s = time.perf_counter() - started
    vectors = open_dataset(open_storage(lake, EMBEDDINGS_FOLDER), EMBEDDINGS).to_table()
    rng = np.random.default_rng(1)
    block = make_transcripts([make_dictation(one.id, one.text) for one in islice(dictations, _BLOCK)])
    place = block.schema.get_field_index("recording_id")
    for start in range(0, count - encoded, _BLOCK):
        ids = [f"more-{number:08d}" for number in range(start, min(start + _BLOCK, count - encoded))]
        rows = block.slice(0, len(ids)).set_column(place, block.schema.field(place), pa.array(ids))
        TranscriptTable(lake).commit(write_staged(rows, lake))
        EmbeddingTable(lake).commit(invent(vectors, ids, rng), make_encoder(encoder))
    return {
        "transcripts": count + len(make_demo_rows()),
        "encoded_transcripts": done.transcripts,
        "encoded_passages": done.passages,
        "encode_s": round(took_s, 1),
        "passages_per_s": round(done.passages / took_s, 1),
    }


def make_dictation(recording_id: str, text_raw: str) -> dict[str, Any]:
    readable = format_text(text_raw)
    sections = [{"heading": one.heading, "name": one.name, "text": one.text} for one in readable.sections]
    return make_row(recording_id, text=readable.text, text_raw=text_raw, sections=sections)


def put(lake: Lake, rows: list[dict[str, Any]]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def invent(vectors: pa.Table, recording_ids: list[str], rng: np.random.Generator) -> pa.Table:
    """A vector for each recording: one that is there, chosen at random, with noise."""
    chosen = vectors.take(rng.integers(0, vectors.num_rows, len(recording_ids)))
    numbers = np.stack([np.frombuffer(one, "<f2") for one in chosen["vector"].to_pylist()]).astype(np.float32)
    numbers += rng.normal(0, _NOISE, numbers.shape).astype(np.float32)
    numbers = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype("<f2")
    values = {"recording_id": recording_ids, "vector": [vector.tobytes() for vector in numbers], "section": [0] * len(numbers)}
    for name, column in values.items():
        place = chosen.schema.get_field_index(name)
        chosen = chosen.set_column(place, name, pa.array(column, EMBEDDINGS.field(name).type))
    return chosen.cast(without_docs(EMBEDDINGS))


def search(lake: Lake) -> dict[str, Any]:
    """Asks all questions in this process."""
    started = time.perf_counter()
    encoder = TextEncoder(Embedding())  # type: ignore[call-arg]
    loaded_s = time.perf_counter() - started
    after_load_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    times, places = [], {}
    for question, expected in ((one.words, one.recording) for one in FIRST):
        started = time.perf_counter()
        hits = find_nearest(lake, make_encoder(encoder), encode_question(encoder, question), 10)
        times.append(time.perf_counter() - started)
        found = [hit.recording_id for hit in hits]
        places[question] = found.index(expected) + 1 if expected in found else None
    return {
        "load_encoder_s": round(loaded_s, 2),
        "search_s": round(statistics.median(times), 2),
        "longest_search_s": round(max(times), 2),
        "memory_with_encoder_mb": round(after_load_mb),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "in_the_first_three": sum(place is not None and place <= 3 for place in places.values()),
        "place_of_the_expected_recording": places,
    }
