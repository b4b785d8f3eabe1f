"""Reads what the columns and frames of a LASR checkpoint mean, from its small files alone, so that a run starts sooner.

transformers gives the same answer after two seconds of imports. This module reads only files that transformers would surely
take as they are: every key is known and holds a usual value. For anything else it leaves the meaning, and the errors, to
transformers, so nothing here is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dictalake.acoustic.frame_grid import lasr_grid
from dictalake.acoustic.lasr.front_end import LasrFrontEnd
from dictalake.records import FrameGrid

Rule = Callable[[Any], bool]


@dataclass(frozen=True)
class LasrFiles:
    """``entries`` are the tokenizer's: piece → id. The model emits the ids below ``columns``. ``special_ids`` are those of the
    tokens for padding, end, start and the unknown, as far as ``entries`` has them.
    """

    columns: int
    blank_id: int
    entries: Mapping[str, int]
    special_ids: tuple[int, ...]
    grid: FrameGrid


@dataclass(frozen=True)
class LasrModel:
    """``config`` has the attributes of ``transformers.LasrCTCConfig`` that a model is made from."""

    config: SimpleNamespace
    front_end: LasrFrontEnd


class _Unusual(Exception):
    """Only transformers can read this."""


def read_lasr_files(folder: Path) -> LasrFiles | None:
    """None if ``folder`` holds another kind of model, or if only transformers can read its files."""
    try:
        config = _take(_read_json(folder / "config.json"), _CONFIG, _CONFIG_MAY)
        encoder = config["encoder_config"]
        kernel, stride = encoder["subsampling_conv_kernel_size"], encoder["subsampling_conv_stride"]
        extractor = _read_extractor(folder)
        grid = lasr_grid(kernel, stride, extractor["hop_length"], extractor["win_length"])
        entries, special_ids = _read_tokenizer(folder, config["vocab_size"])
        return LasrFiles(config["vocab_size"], config["pad_token_id"], entries, special_ids, grid)
    except Exception:  # tokenizers raises a bare one for a damaged tokenizer.json; transformers will report it
        return None


def read_lasr_model(folder: Path) -> LasrModel | None:
    """None if ``folder`` holds another kind of model, or if only transformers knows what its files mean."""
    try:
        config = _take(_read_json(folder / "config.json"), _CONFIG, _CONFIG_MAY)
        encoder, extractor = config["encoder_config"], _read_extractor(folder)
    except (OSError, ValueError, KeyError, TypeError, _Unusual):  # transformers will report it
        return None
    if not encoder.keys() >= set(_OF_A_MODEL) or "rope_theta" not in encoder["rope_parameters"]:
        return None
    front_end = LasrFrontEnd(**{name: extractor[name] for name in _OF_A_FRONT_END})
    own = SimpleNamespace(**{name: encoder[name] for name in _OF_A_MODEL})
    return LasrModel(
        SimpleNamespace(model_type=config["model_type"], vocab_size=config["vocab_size"], encoder_config=own), front_end
    )


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _fits(document: Any, must: Mapping[str, Rule], may: Mapping[str, Rule]) -> bool:
    """Whether it has all keys of ``must``, beyond them only keys of ``may``, and every value passes its rule."""
    rules = {**may, **must}
    return (
        isinstance(document, dict)
        and must.keys() <= document.keys() <= rules.keys()
        and all(rules[key](value) for key, value in document.items())
    )


def _take(document: Any, must: Mapping[str, Rule], may: Mapping[str, Rule]) -> dict[str, Any]:
    if not _fits(document, must, may):
        raise _Unusual
    return dict(document)


def _is(*kinds: type) -> Rule:
    return lambda value: type(value) in kinds  # not isinstance: in JSON a bool is no number


def _one_of(*texts: str) -> Rule:
    return lambda value: isinstance(value, str) and value in texts


def _list_of(rule: Rule) -> Rule:
    return lambda value: isinstance(value, list) and all(rule(item) for item in value)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _filled(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_text, _flag, _number, _float = _is(str), _is(bool), _is(int, float), _is(float)
_dtype, _side = _one_of("float32", "float16", "bfloat16"), _one_of("left", "right")
_COMMON = {"architectures": _list_of(_text), "dtype": _dtype, "torch_dtype": _dtype, "transformers_version": _text}
_ROPE = {"rope_type": _one_of("default")}
_ENCODER = {"subsampling_conv_kernel_size": _count, "subsampling_conv_stride": _count}
# Few of these are used, but transformers refuses a file in which one of them has another type.
_ENCODER_MAY = {
    **_COMMON,
    "activation_dropout": _number,
    "attention_bias": _flag,
    "attention_dropout": _number,
    "batch_norm_momentum": _float,
    "conv_kernel_size": _count,
    "conv_residual_weights": _list_of(_float),
    "convolution_bias": _flag,
    "dropout": _number,
    "dropout_positions": _number,
    "feed_forward_residual_weights": _list_of(_float),
    "hidden_act": _text,
    "hidden_size": _count,
    "initializer_range": _float,
    "intermediate_size": _count,
    "layer_norm_eps": _float,
    "layerdrop": _number,
    "max_position_embeddings": _count,
    "model_type": _one_of("lasr_encoder"),
    "num_attention_heads": _count,
    "num_hidden_layers": _count,
    "num_key_value_heads": _count,
    "num_mel_bins": _count,
    "rope_parameters": lambda value: _fits(value, _ROPE, {"rope_theta": _number}),
    "subsampling_conv_channels": _count,
}
# What FastLasr is made from. Where a file leaves one of them out, transformers has a default, which may change.
_OF_A_MODEL = (
    *("attention_bias", "conv_kernel_size", "conv_residual_weights", "convolution_bias", "feed_forward_residual_weights"),
    *("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "num_attention_heads", "num_hidden_layers"),
    *("num_key_value_heads", "num_mel_bins", "rope_parameters", "subsampling_conv_channels"),
    *("subsampling_conv_kernel_size", "subsampling_conv_stride"),
)
_CONFIG = {
    "encoder_config": lambda value: _fits(value, _ENCODER, _ENCODER_MAY),
    "model_type": _one_of("lasr_ctc"),
    "pad_token_id": _is(int),
    "vocab_size": _count,
}
_CONFIG_MAY = {
    **_COMMON,
    "bos_token_id": _is(int, type(None)),
    "ctc_loss_reduction": _text,
    "ctc_zero_infinity": _flag,
    "eos_token_id": _is(int, type(None)),
    "initializer_range": _float,
}
_EXTRACTOR = {
    "feature_extractor_type": _one_of("LasrFeatureExtractor"),
    "feature_size": _count,
    "hop_length": _count,
    "n_fft": _count,
    "sampling_rate": _count,
    "win_length": _count,
}
_OF_A_FRONT_END = ("hop_length", "win_length", "n_fft", "sampling_rate", "feature_size")
_EXTRACTOR_MAY = {"padding_side": _text, "padding_value": _number, "processor_class": _text, "return_attention_mask": _flag}


def _read_extractor(folder: Path) -> dict[str, Any]:
    """Reads it as AutoFeatureExtractor does: ``processor_config.json`` takes precedence over a separate file."""
    nested = folder / "processor_config.json"
    processor = _read_json(nested) if nested.exists() else {}
    if not isinstance(processor, dict) or "audio_processor" in processor:
        raise _Unusual
    if "feature_extractor" in processor:
        return _take(processor["feature_extractor"], _EXTRACTOR, _EXTRACTOR_MAY)
    return _take(_read_json(folder / "preprocessor_config.json"), _EXTRACTOR, _EXTRACTOR_MAY)


_NAMED = ("pad_token", "eos_token", "bos_token", "unk_token")
_OLD_FILES = ("added_tokens.json", "special_tokens_map.json")  # read only without an added_tokens_decoder
_CHAT_FILES = ("chat_template.jinja", "additional_chat_templates")
_FLAGS = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word", "special"), _flag)
_WRITTEN_OUT = {"__type": _one_of("AddedToken"), "content": _filled}


def _token(value: Any) -> bool:
    return _filled(value) or _fits(value, _WRITTEN_OUT, _FLAGS)


def _added_by_id(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdecimal() and _fits(token, {"content": _filled}, _FLAGS) for key, token in value.items()
    )


_TOKENIZER = {
    "eos_token": _token,
    "pad_token": _token,
    "tokenizer_class": _one_of("LasrTokenizer", "LasrTokenizerFast"),
    "unk_token": _token,
}
_TOKENIZER_MAY = {
    "added_tokens_decoder": _added_by_id,
    "additional_special_tokens": _list_of(_filled),
    "backend": _text,
    "bos_token": lambda value: value is None or _token(value),
    "clean_up_tokenization_spaces": _flag,
    "extra_ids": lambda value: type(value) is int and value >= 0,
    "extra_special_tokens": _list_of(_filled),
    "is_local": _flag,
    "local_files_only": _flag,
    "model_input_names": _list_of(_filled),
    "model_max_length": _number,
    "padding_side": _side,
    "processor_class": _text,
    "split_special_tokens": _flag,
    "truncation_side": _side,
}


def _read_tokenizer(folder: Path, columns: int) -> tuple[dict[str, int], tuple[int, ...]]:
    """Entries of the Unigram model, and ids of the named tokens.

    LasrTokenizer rebuilds a model from these entries, then appends the special tokens that are not among them. The ids of
    these are left out: either there are none, or the head is so narrow that it does not emit them.
    """
    settings = _take(_read_json(folder / "tokenizer_config.json"), _TOKENIZER, _TOKENIZER_MAY)
    more, extra = settings.get("additional_special_tokens", []), settings.get("extra_special_tokens", [])
    if (more and extra) or any((folder / name).exists() for name in _CHAT_FILES):
        raise _Unusual
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    named = [_content(settings[name]) for name in _NAMED if settings.get(name) is not None]
    document = json.loads(text)
    if document.get("normalizer") is not None:
        raise _Unusual  # transformers would parse it again
    added = [*named, *more, *extra, *_list_added(folder, settings, document)]
    entries, width = _read_entries(text)
    if columns > width and (settings.get("extra_ids") != 0 or not entries.keys() >= set(added)):
        raise _Unusual
    return entries, tuple(entries[token] for token in named if token in entries)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _list_added(folder: Path, settings: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Texts of the tokens that were added to the model's own, read where transformers reads them."""
    if "added_tokens_decoder" in settings:
        return [_content(token) for token in settings["added_tokens_decoder"].values()]
    if any((folder / name).exists() for name in _OLD_FILES):
        raise _Unusual
    return [_content(_take(token, {"content": _filled, "id": _is(int)}, _FLAGS)) for token in document["added_tokens"]]


def _read_entries(text: str) -> tuple[dict[str, int], int]:
    """Piece → id of the Unigram model in a ``tokenizer.json``, and the number of its ids.

    Like transformers, it reads the whole file, so that damage anywhere is noticed.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    tokenizer = Tokenizer.from_str(text)
    width = tokenizer.get_vocab_size(with_added_tokens=False)
    # LasrTokenizer uses entry 3 for unknown characters, so there must be one.
    usual = isinstance(tokenizer.model, Unigram) and width > 3
    if not usual or tokenizer.truncation is not None or tokenizer.padding is not None:
        raise _Unusual
    return tokenizer.get_vocab(with_added_tokens=False), width
