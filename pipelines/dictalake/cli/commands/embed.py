"""Give the transcripts of a lake the vectors by which dictalake search --by-meaning finds them.

    dictalake embed ./lake
    dictalake search ./lake --by-meaning "blood clot in the lung"
    dictalake embed ./lake --embedding.model google/medsiglip-448    another encoder; both stay

Each section of a transcript is cut into passages of whole sentences; a text encoder makes a vector of each, and the table
embeddings in the lake keeps it. Transcripts that have their vectors are left alone: run it again after each night, and to
resume. It follows the view transcripts. forget erases vectors with their recordings. MedSigLIP's text tower reads 64 tokens at
once; a longer sentence is cut.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_lake, read_config
from dictalake.errors import ConfigError

EMBEDDING_KEYS = ("embedding.model", "embedding.revision", "embedding.device", "embedding.passage_tokens")


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser, shown=(*LAKE_KEYS, *EMBEDDING_KEYS))


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake embed ./lake")
    from dictalake.cli.embed import embed

    return embed(config)
