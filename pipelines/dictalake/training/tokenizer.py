"""Builds a LASR tokenizer (SentencePiece Unigram, ``<pad>``=0 is the CTC blank) from text.

Each markup word (``{period}``, ``[FINDINGS]``, the halves of ``{new paragraph}``) becomes a single piece, so that a
dictated command is one emission and one event for the language model.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable

import sentencepiece
from transformers import LasrTokenizer

_MARKUP_WORD = re.compile(r"[{}\[\]]")
_SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer(texts: Iterable[str], pieces: int) -> LasrTokenizer:
    """A tokenizer with at most ``pieces`` entries for ``texts``; a small text gives fewer."""
    texts = list(texts)
    counts = Counter(word for text in texts for word in text.split() if _MARKUP_WORD.search(word))
    markup = [f"▁{word}" for word, count in counts.most_common() if count >= 5]
    plain = [" ".join(word for word in text.split() if not _MARKUP_WORD.search(word)) for text in texts]
    letters = sorted(set("".join(texts)) - set(" \t\n"))
    room = pieces - len(markup) - len(_SPECIAL) - len(letters)
    ordered = [(piece, 0.0) for piece in _SPECIAL] + [("▁", -8.0)]
    ordered += [(piece, 0.0) for piece in markup]
    learnt = _learn_pieces(plain, room) if room > 0 else {}
    learnt |= {letter: -12.0 for letter in letters if letter not in learnt}
    # LasrTokenizer uses entry 3 for unknown characters; a lone space marker is harmless there.
    ordered += [(piece, score) for piece, score in learnt.items() if piece not in {"▁", *markup}]
    return LasrTokenizer(vocab=ordered[:pieces], extra_ids=0)


def _learn_pieces(texts: list[str], pieces: int) -> dict[str, float]:
    """Unigram pieces with their log-probabilities."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return {processor.id_to_piece(i): processor.get_score(i) for i in range(1, processor.get_piece_size())}
