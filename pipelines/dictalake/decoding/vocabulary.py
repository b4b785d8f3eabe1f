"""What the columns of the emissions mean: one form for SentencePiece, Unigram and character vocabularies.

Inside dictalake, ``▁`` at the start of a piece starts a word. Character vocabularies (wav2vec 2.0) mark the gap with
``|`` instead, and their ``|`` becomes the piece ``▁``. Special entries are written ``<…>``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dictalake.errors import ConfigError

WORD_START = "▁"
_ANGLED = re.compile(r"<.+>")


@dataclass(frozen=True)
class Vocabulary:
    """``pieces`` in id order, the CTC blank included. ``special_ids`` (the blank among them) stand for no text."""

    pieces: tuple[str, ...]
    blank_id: int
    special_ids: frozenset[int]

    def __post_init__(self) -> None:
        if not 0 <= self.blank_id < len(self.pieces):
            raise ConfigError(
                f"acoustic.model: the blank has id {self.blank_id}, but the model emits ids 0 to {len(self.pieces) - 1}; "
                "the model's pad_token_id must be the CTC blank"
            )

    @classmethod
    def from_pieces(
        cls, pieces: Sequence[str], blank_id: int, special_ids: Iterable[int] = (), word_delimiter: str | None = None
    ) -> Vocabulary:
        """Normalises raw ``pieces``: specials become ``<…>``, and a character vocabulary's ``word_delimiter`` becomes ``▁``.

        Entries that are empty or look like ``<…>`` are special, named or not.
        """
        special = {blank_id, *special_ids} | {i for i, piece in enumerate(pieces) if not piece or _ANGLED.fullmatch(piece)}
        normalised = []
        for i, piece in enumerate(pieces):
            if i in special:
                normalised.append(piece if _ANGLED.fullmatch(piece) else f"<{piece.strip('[]<>') or i}>")
            else:
                normalised.append(WORD_START if piece in (word_delimiter, " ") else piece)
        return cls(tuple(normalised), blank_id, frozenset(i for i in special if i < len(pieces)))

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, model_vocabulary_size: int, blank_id: int | None = None) -> Vocabulary:
        """Makes a vocabulary from a Hugging Face tokenizer and the width of the model's CTC head, as ``from_entries``.

        ``blank_id`` defaults to the padding token. Raises ConfigError if the tokenizer has none.
        """
        own = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
        blank = tokenizer.pad_token_id if blank_id is None else blank_id
        if blank is None:
            raise ConfigError("acoustic.model: the tokenizer has no padding token, so the CTC blank is unknown")
        special = [i for i in own if i is not None]
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        return cls.from_entries(tokenizer.get_vocab(), model_vocabulary_size, blank, special, delimiter)

    @classmethod
    def from_entries(
        cls,
        entries: Mapping[str, int],
        model_vocabulary_size: int,
        blank_id: int,
        special_ids: Iterable[int] = (),
        word_delimiter: str | None = None,
    ) -> Vocabulary:
        """Makes a vocabulary from a tokenizer's ``entries`` (piece → id) and the width of the model's CTC head.

        Entries at or above ``model_vocabulary_size`` are cut off (MedASR's tokenizer has 613, its head emits 512);
        columns without an entry in the tokenizer become special.
        """
        names = {index: piece for piece, index in entries.items()}
        pieces = [names.get(i, f"<unused_{i}>") for i in range(model_vocabulary_size)]
        return cls.from_pieces(pieces, blank_id, [i for i in special_ids if i < model_vocabulary_size], word_delimiter)

    def pyctcdecode_labels(self) -> list[str]:
        """Each piece as a pyctcdecode "word", as in Google's recipe for MedASR: the language model is over pieces.

        The blank is "", special entries stay, and any other piece is ``"▁" + piece.replace("▁", "#")``. The recipe does not
        cover a ``#`` in the vocabulary itself. Where it would make two labels the same, it is written ``＃``.
        """
        labels = [self._label(i, piece) for i, piece in enumerate(self.pieces)]
        counts = Counter(labels)
        return [
            self._label(i, piece.replace("#", "＃")) if counts[label] > 1 else label
            for i, (piece, label) in enumerate(zip(self.pieces, labels, strict=True))
        ]

    def _label(self, index: int, piece: str) -> str:
        if index == self.blank_id:
            return ""
        return piece if index in self.special_ids else WORD_START + piece.replace(WORD_START, "#")

    def lm_words(self) -> dict[int, str]:
        """Id → the piece's word in the language model and in its corpus; special entries have none."""
        return {i: label[1:] for i, label in enumerate(self.pyctcdecode_labels()) if i not in self.special_ids}

    def text_of(self, pieces: Iterable[str]) -> str:
        """Joins pieces to text with single spaces and drops special entries.

        >>> vocabulary.text_of(["▁no", "▁acute", "▁fra", "cture", "▁{period}", "</s>"])
        'no acute fracture {period}'
        """
        special = {self.pieces[i] for i in self.special_ids}
        joined = "".join(piece for piece in pieces if piece not in special)
        return " ".join(joined.replace(WORD_START, " ").split())
