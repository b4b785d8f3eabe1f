"""Embeds a lake, with a line for each commit and one at the end; and searches it by meaning."""

from __future__ import annotations

from rich.console import Console

from dictalake import logs
from dictalake.cli.tables import print_lines
from dictalake.config.sections import Config
from dictalake.embedding.embed import Embedded, embed_lake, make_encoder
from dictalake.embedding.encoder import TextEncoder
from dictalake.lake.embeddings import find_nearest
from dictalake.lake.search import Hit


def embed(config: Config) -> int:
    encoder, console = TextEncoder(config.embedding), Console()
    identity = encoder.identity
    print_lines(
        console,
        f"encoder {identity.model}, fingerprint {identity.fingerprint}: {encoder.dimensions} numbers a vector, passages of at "
        f"most {identity.passage_tokens} tokens (the model reads {identity.limit})",
    )

    def report(done: Embedded) -> None:
        line = f"{done.transcripts} transcripts embedded"
        logs.log_event("progress", line, logs.shown_on(Console(stderr=True)), **_numbers(done))

    done = embed_lake(config.lake, encoder, report)
    left_out = [
        *([f"{done.already_there} passages were there already"] if done.already_there else []),
        *([f"{done.gone} passages of erased recordings left out"] if done.gone else []),
    ]
    what = f"{done.transcripts} transcripts, {done.passages} passages" if done.transcripts else "nothing new to embed"
    logs.log_event("embedded", "; ".join([what, *left_out]), logs.shown_on(console), **_numbers(done))
    return 0


def _numbers(done: Embedded) -> dict[str, int]:
    return vars(done)


def search_by_meaning(config: Config, words: str, limit: int) -> list[Hit]:
    encoder = TextEncoder(config.embedding)
    return find_nearest(config.lake, make_encoder(encoder), encoder.encode_question(words), limit)
