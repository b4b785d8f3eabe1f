"""Measures search by meaning with the real small encoder: where questions find their answer, seconds and memory.

    python -m jobs.benchmarks meaning --out FILE.json [--encoded 5000] [--rows 100000]

The questions (tests/meaning_questions.py) look for sentences of the demo archive and share no content word with them. They are
asked twice, each time by a process of its own, whose peak is the memory:

- over the demo's texts and ``--encoded`` different synthetic dictations, each encoded: where the expected recording stands;
- over ``--rows`` in all, for seconds and memory. The others are copies of those, so places mean nothing there.

A dictation that states the fact that a question looks for is left out, since it would be a right answer too. The words of
its text decide that, before anything is ranked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from rich.console import Console

from dictalake.cli.tables import print_lines
from dictalake.config.embedding import Embedding
from dictalake.config.sections import Lake
from dictalake.embedding.embed import embed_lake, make_encoder
from dictalake.embedding.encoder import TextEncoder
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import open_dataset
from dictalake.lake.embeddings import EmbeddingTable, find_nearest
from dictalake.lake.places import EMBEDDINGS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import EMBEDDINGS, TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from dictalake.training.dictation import Corpus, Dictation, write_dictations
from dictalake.transcript.formatting import format_text
from jobs.benchmarks.__main__ import write_result
from tests.demo_texts import make_demo_rows
from tests.lake_rows import make_row
from tests.meaning_questions import FIRST, FRESH, find_stated

_BLOCK = 5_000  # rows
_SEARCH, _DEPTH = "--search-in", 1_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmarks meaning", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--encoded", type=int, default=5_000)
    parser.add_argument("--model", default="packaged:all-minilm-l6-v2", help="another encoder")
    parser.add_argument("--out", type=Path, help="write the figures to this file too")
    parser.add_argument(_SEARCH, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    config = Embedding.model_validate({"model": arguments.model})
    if arguments.search_in:
        print(json.dumps(search(Lake.model_validate({"uri": str(arguments.search_in)}), config)))
        return 0
    with TemporaryDirectory() as folder:
        lake = Lake.model_validate({"uri": f"{folder}/lake"})
        command = [sys.executable, "-m", "jobs.benchmarks", "meaning", "--model", arguments.model, _SEARCH, str(lake.uri)]

        def ask() -> Any:
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

        result: dict[str, Any] = {"encoder": arguments.model, **fill(lake, arguments.encoded, config)}
        answers = ask()
        result |= {name: answers[name] for name in ("in_the_first_three", "places")}
        add_copies(lake, arguments.rows, config)
        result |= {"rows": arguments.rows, **{name: value for name, value in ask().items() if name not in result}}
    for name, value in result.items():
        print_lines(Console(), f"{name}: {value}")
    write_result(result, arguments.out)
    return 0


def fill(lake: Lake, encoded: int, config: Embedding) -> dict[str, Any]:
    """Makes the lake; returns what encoding took, and how many dictations stated a fact and were left out."""
    encoder, kept, left_out = TextEncoder(config), list[Dictation](), Counter[str]()
    seen = set[str]()
    for one in write_dictations(Corpus.load(), 1, 4 * encoded, held_out=False):
        stated = find_stated((*FIRST, *FRESH), format_text(one.text).text)
        left_out.update(question.words for question in stated)
        if not stated and one.text not in seen and len(kept) < encoded:
            seen.add(one.text)
            kept.append(one)
        if len(kept) == encoded:
            break
    put(lake, [*make_demo_rows(), *(make_dictation(one.id, one.text) for one in kept)])
    started = time.perf_counter()
    done = embed_lake(lake, encoder)
    took_s = time.perf_counter() - started
    return {
        "transcripts": done.transcripts,
        "passages": done.passages,
        "encode_s": round(took_s, 1),
        "passages_per_s": round(done.passages / took_s, 1),
        "left_out_as_stating_a_fact": dict(left_out),
    }


def add_copies(lake: Lake, rows: int, config: Embedding) -> None:
    """Fills the lake up with copies of the encoded dictations and of their vectors, each a recording of its own."""
    encoder = make_encoder(TextEncoder(config))
    texts = open_dataset(open_storage(lake, TRANSCRIPTS_FOLDER), TRANSCRIPTS).to_table().to_pylist(maps_as_pydicts="lossy")
    dictations = [row for row in texts if row["recording_id"].startswith("train-")]
    vectors = open_dataset(open_storage(lake, EMBEDDINGS_FOLDER), EMBEDDINGS).to_table()
    of_id: dict[str, list[dict[str, Any]]] = {}
    for vector in vectors.to_pylist():
        of_id.setdefault(vector["recording_id"], []).append(vector)
    for start in range(len(texts), rows, _BLOCK):
        block, copied = [], []
        for number in range(start, min(start + _BLOCK, rows)):
            row, name = dictations[number % len(dictations)], f"copy-{number:08d}"
            block.append(make_row(name, text=row["text"], text_raw=row["text_raw"], sections=row["sections"]))
            copied += [{**vector, "recording_id": name} for vector in of_id[row["recording_id"]]]
        put(lake, block)
        EmbeddingTable(lake).commit(pa.Table.from_pylist(copied, schema=without_docs(EMBEDDINGS)), encoder)


def make_dictation(recording_id: str, text_raw: str) -> dict[str, Any]:
    readable = format_text(text_raw)
    sections = [{"heading": one.heading, "name": one.name, "text": one.text} for one in readable.sections]
    return make_row(recording_id, text=readable.text, text_raw=text_raw, sections=sections)


def put(lake: Lake, rows: list[dict[str, Any]]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def search(lake: Lake, config: Embedding) -> dict[str, Any]:
    """Asks all questions in this process."""
    started = time.perf_counter()
    encoder = TextEncoder(config)
    loaded_s = time.perf_counter() - started
    after_load_mb = read_peak_mb()
    times, processor_s, places = [], [], dict[str, dict[str, int | None]]()
    for name, questions in (("first", FIRST), ("fresh", FRESH)):
        places[name] = {}
        for question in questions:
            started, began = time.perf_counter(), time.process_time()
            hits = find_nearest(lake, make_encoder(encoder), encoder.encode_question(question.words), _DEPTH)
            times.append(time.perf_counter() - started)
            processor_s.append(time.process_time() - began)
            found = [hit.recording_id for hit in hits]
            places[name][question.words] = found.index(question.recording) + 1 if question.recording in found else None
    return {
        "load_encoder_s": round(loaded_s, 2),
        "search_s": round(statistics.median(times), 2),
        "longest_search_s": round(max(times), 2),
        "processor_s_of_a_search": round(statistics.median(processor_s), 2),
        "memory_with_encoder_mb": after_load_mb,
        "peak_memory_mb": read_peak_mb(),
        "in_the_first_three": {
            name: sum(place is not None and place <= 3 for place in of.values()) for name, of in places.items()
        },
        "places": places,
    }


def read_peak_mb() -> int:
    """Of this process alone: what getrusage says has the memory of the process that started it too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024 / 1e6)
