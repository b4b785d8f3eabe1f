"""Tiny text encoders with random weights, saved as transformers saves real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, SiglipTextConfig, SiglipTextModel

_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "no", "fracture", "of", "the", "wrist", "and", "hand")


def write_bert(folder: Path) -> Path:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(_WORDS), max_position_embeddings=40, **sizes)).save_pretrained(folder)
    _write_tokenizer(folder, "[CLS] $A [SEP]")
    return folder


def write_siglip(folder: Path) -> Path:
    """The text tower of MedSigLIP in small: 64 places, a token at the end, and its last place is the vector."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = SiglipTextConfig(vocab_size=len(_WORDS), max_position_embeddings=64, projection_size=16, **sizes)
    SiglipTextModel(config).save_pretrained(folder)
    _write_tokenizer(folder, "$A [SEP]")
    return folder


def _write_tokenizer(folder: Path, template: str) -> None:
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    specials = [(word, _WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=specials)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
