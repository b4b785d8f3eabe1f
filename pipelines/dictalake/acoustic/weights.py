"""Loads a checkpoint's model from its folder: LASR from its tensors, other CTC models through transformers' own classes.

Importing transformers takes two seconds, which each worker would wait before its first window. LASR does not need it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dictalake.acoustic.device import one_thread_each
from dictalake.acoustic.lasr.files import read_lasr_model
from dictalake.acoustic.lasr.model import FastLasr, tensor_shapes
from dictalake.errors import ConfigError


@one_thread_each()  # as in FastLasr.prepare
def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """A CTC model in float32 and its feature extractor from a local folder; takes only safetensors, and no remote code.

    The model is a FastLasr if both are LASR's, else transformers' own. Raises ConfigError for a folder that does not load, and
    for weights that are missing or do not have the shape that the configuration says.
    """
    try:
        if (lasr := read_lasr_model(folder)) is not None and (tensors := _read_lasr(folder, lasr.config)) is not None:
            return FastLasr(lasr.config, tensors), lasr.front_end
        from transformers import AutoConfig, AutoFeatureExtractor, LasrCTCConfig, LasrFeatureExtractor

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        is_lasr = isinstance(config, LasrCTCConfig) and isinstance(extractor, LasrFeatureExtractor)
        tensors = _read_lasr(folder, config) if is_lasr else None
        if tensors is not None:
            return FastLasr(config, tensors), extractor
        model, found = _open_with_transformers(folder, config)
    except (ValueError, KeyError, OSError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"acoustic.model: {folder.name} does not load as a Hugging Face CTC model: {reason}") from None
    _require_all(folder, found)
    if is_lasr:
        return FastLasr(model.config, model.state_dict(), model.encoder.rotary_emb), extractor
    return model, extractor


def _read_lasr(folder: Path, config: Any) -> dict[str, torch.Tensor] | None:
    """The tensors for FastLasr in float32, memory-mapped if the files have that type.

    None for what only transformers can open or report: other names, shapes or places, quantised weights, scaled positions.
    """
    usual_positions = config.encoder_config.rope_parameters["rope_type"] == "default"
    if not usual_positions or any(getattr(config, name, None) for name in ("quantization_config", "transformers_weights")):
        return None
    shapes, tensors = tensor_shapes(config), dict[str, torch.Tensor]()
    for path in _list_files(folder):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name).to(torch.float32) for name in shapes.keys() & set(file.keys())}
    return tensors if {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes else None


def _list_files(folder: Path) -> list[Path]:
    """The weight files that transformers takes, in its order; empty if there are none."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(weight_map.values()))]


def _open_with_transformers(folder: Path, config: Any) -> tuple[Any, dict[str, Any]]:
    """A model and the report of its loading. Weights of another shape do not stop it: its own error would not name them."""
    from transformers import AutoModelForCTC

    model, found = AutoModelForCTC.from_pretrained(
        folder,
        config=config,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return model, found


def _require_all(folder: Path, found: dict[str, Any]) -> None:
    """Raises ConfigError for missing weights; transformers would fill them with random numbers and continue."""
    if others := sorted(found["mismatched_keys"]):
        name, shape, wanted = others[0]
        raise ConfigError(
            f"acoustic.model: {folder.name} has {len(others)} weights of another shape than its config.json says, the first is "
            f"{name}: {tuple(shape)}, not {tuple(wanted)}; the two must be of the same model"
        )
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"acoustic.model: {folder.name} lacks {len(missing)} weights of a CTC model, the first is {missing[0]}; "
            "a model that was never trained to transcribe has no CTC head"
        )
