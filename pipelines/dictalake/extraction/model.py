"""What reads a text and answers: a server (``server_model``) or a model in this process (``local_model``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dictalake.errors import TranscriptionError
from dictalake.extraction.prompt import Message


@dataclass(frozen=True)
class Request:
    """One part of a transcript, as a conversation."""

    recording_id: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Reply:
    """What the model wrote, and the tokens that it read and wrote where it says so."""

    text: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class LanguageModel(Protocol):
    """Answers requests. ``is_constrained`` says whether the answers are bound to the schema; None where nobody knows."""

    is_constrained: bool | None

    def answer(self, requests: Sequence[Request]) -> list[Reply | TranscriptionError]:
        """A reply for each request, in their order, or why there is none. Safe to call from several threads."""

    def probe(self) -> dict[str, bool | None]:
        """Whether it takes a schema (``takes_schema``) and keeps to it (``is_constrained``). Raises ConfigError, RunError."""

    def close(self) -> None: ...
