"""The swap point: emissions of one channel in, hypotheses of it out."""

from __future__ import annotations

from typing import Protocol

from dictalake.config.sections import Decoding
from dictalake.decoding.beam import BeamDecoder, name_search
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis


class Decoder(Protocol):
    """Turns emissions into text."""

    @property
    def name(self) -> str:
        """Which code decodes, with its version, for provenance: ``greedy``, ``pyctcdecode 0.5.0``."""

    def decode(self, emissions: Emissions) -> list[Hypothesis]:
        """At least one hypothesis, the best first. No frames, or nothing but blanks: one hypothesis without pieces."""


def name_decoder(config: Decoding) -> str:
    """``name`` of the decoder that ``open_decoder`` would open. Raises ConfigError for an engine that is not there."""
    return "greedy" if config.kind == "greedy" else name_search(config)


def open_decoder(config: Decoding, vocabulary: Vocabulary) -> Decoder:
    """The decoder that ``decoding.kind`` names; its language model is loaded here, once.

    Raises ConfigError for a language model that is missing, damaged, or made for other pieces.
    """
    match config.kind:
        case "greedy":
            return GreedyDecoder(vocabulary)
        case "beam":
            return BeamDecoder(config, vocabulary)
