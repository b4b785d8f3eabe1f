"""Gives the passages of a lake's transcripts their vectors: what has none yet, exactly once, in the table ``embeddings``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Lake
from dictalake.embedding.encoder import TextEncoder
from dictalake.embedding.passages import Passage, cut_transcript
from dictalake.lake.contract import without_docs
from dictalake.lake.embeddings import KEY, EmbeddingTable, Encoder
from dictalake.lake.schema import EMBEDDINGS

_COMMIT_PASSAGES = 4096  # as many are encoded and committed together: a kill loses no more
_COMMIT_TRANSCRIPTS = 2048


@dataclass(frozen=True)
class Embedded:
    """What an embedding did, in numbers: ``already_there`` were written by another process meanwhile, ``gone`` were erased."""

    transcripts: int = 0
    passages: int = 0
    already_there: int = 0
    gone: int = 0


def embed_lake(lake: Lake, encoder: TextEncoder, report: Callable[[Embedded], None] = lambda done: None) -> Embedded:
    """Embeds what the view ``transcripts`` shows and has no vectors of this encoder. Run it again to resume.

    ``report`` is told after each commit. Raises RunError when the lake cannot be read or written.
    """
    table = EmbeddingTable(lake)
    table.sweep()
    of_encoder, done = make_encoder(encoder), Embedded()
    for chunk in _split(table.iter_missing(of_encoder.fingerprint), encoder):
        committed = table.commit(make_rows(chunk, encoder), of_encoder)
        done = replace(
            done,
            transcripts=done.transcripts + committed.transcripts,
            passages=done.passages + committed.rows,
            already_there=done.already_there + committed.already_there,
            gone=done.gone + committed.gone,
        )
        report(done)
    return done


Cut = list[tuple[dict[str, Any], list[Passage]]]  # a transcript's key, and its passages


def _split(rows: Iterator[dict[str, Any]], encoder: TextEncoder) -> Iterator[Cut]:
    """Transcripts with their passages, in chunks to be committed; all passages of a transcript are in one chunk."""
    chunk: Cut = []
    for row in rows:
        passages = list(cut_transcript(row["text"], row["sections"], encoder.count_tokens, encoder.passage_tokens))
        chunk.append(({name: row[name] for name in KEY}, passages))
        if len(chunk) >= _COMMIT_TRANSCRIPTS or sum(len(passages) for _, passages in chunk) >= _COMMIT_PASSAGES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def make_rows(chunk: Cut, encoder: TextEncoder) -> pa.Table:
    """The rows of these passages, schema EMBEDDINGS."""
    vectors = iter(encoder.encode([passage.text for _, passages in chunk for passage in passages]).astype("<f2"))
    at, fingerprint = datetime.now(UTC), encoder.identity.fingerprint
    rows = [
        {
            **key,
            "encoder": fingerprint,
            "section": passage.section,
            "start": passage.start,
            "end": passage.end,
            "vector": vector.tobytes(),
            "at": at,
        }
        for key, passages in chunk
        for passage, vector in zip(passages, islice(vectors, len(passages)), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=without_docs(EMBEDDINGS))


def make_encoder(encoder: TextEncoder) -> Encoder:
    """What the lake needs to know of an encoder."""
    return Encoder(encoder.identity.fingerprint, encoder.identity.model, encoder.dimensions)
