"""The decoder's protocol: emissions of one channel in, hypotheses of it out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

from dictalake.config.sections import Decoding
from dictalake.decoding.beam import BeamDecoder, name_search
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.native.machine_code import made_once, needs_machine_code
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis


class Decoder(Protocol):
    """Turns emissions into text."""

    @property
    def name(self) -> str:
        """The decoding package and its version, for provenance: ``greedy``, ``pyctcdecode 0.5.0``."""

    def prepare(self) -> None:
        """Does what the first recording would wait for, such as compiling. A worker calls it before there is work."""

    def decode(self, emissions: Emissions, most: int | None = None) -> list[Hypothesis]:
        """One hypothesis or more, the best first, and ``most`` at most; to read fewer is faster.

        No frames, or blanks only, give one hypothesis without pieces.
        """


def name_decoder(config: Decoding) -> str:
    """``name`` of the decoder that ``open_decoder`` would open. Raises ConfigError for a missing engine."""
    return "greedy" if config.kind == "greedy" else name_search(config)


def open_decoder(config: Decoding, vocabulary: Vocabulary) -> Decoder:
    """Opens the decoder that ``decoding.kind`` names and loads its language model.

    Raises ConfigError for a language model that is missing, damaged, or made for other pieces.
    """
    match config.kind:
        case "greedy":
            return GreedyDecoder(vocabulary)
        case "beam":
            return BeamDecoder(config, vocabulary)


def open_prepared(config: Decoding, vocabulary: Vocabulary) -> Decoder:
    """Opens a decoder for which nothing is left to compile. Of several processes on a machine one compiles, the others wait."""
    with made_once() if needs_machine_code(config) else nullcontext():
        decoder = open_decoder(config, vocabulary)
        decoder.prepare()
        return decoder
