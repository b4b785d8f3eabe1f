"""LASR's weights are read as they lie in a folder, without transformers' model classes; what is unusual goes through those."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LasrForCTC, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from dictalake.acoustic import weights
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.weights import load_checkpoint
from dictalake.errors import ConfigError

Tensors = dict[str, torch.Tensor]
HEAD = "ctc_head.weight"
FEATURES = torch.randn(2, 98, 128, generator=torch.Generator().manual_seed(1)) * 2 - 6


@pytest.fixture
def folder(random_lasr: Path, tmp_path: Path) -> Path:
    shutil.copytree(random_lasr, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where transformers' classes are asked."""
    monkeypatch.setattr(weights, "_open_with_transformers", None)


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in change(load_file(path)).items()}, path, {"format": "pt"})


def shard(folder: Path) -> None:
    tensors, weight_map = load_file(folder / "model.safetensors"), {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def configure(folder: Path, **encoder: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["encoder_config"] |= encoder
    (folder / "config.json").write_text(json.dumps(config))


@torch.inference_mode()
def logits(folder: Path) -> torch.Tensor:
    model, _ = load_checkpoint(folder)
    assert isinstance(model, FastLasr)
    said: torch.Tensor = model(FEATURES)
    return said


@torch.inference_mode()
def logits_of_transformers(folder: Path) -> torch.Tensor:
    said: torch.Tensor = LasrForCTC.from_pretrained(folder, dtype=torch.float32).eval()(input_features=FEATURES).logits
    return said


def test_a_worker_opens_the_embedded_model_without_transformers() -> None:
    """Loads the model in a new process, as a worker does; then runs a full window and a padded one."""
    script = """
import sys
import numpy as np
import dictalake.workflow.stages.emit
from dictalake.acoustic.model import open_model
from dictalake.config.sections import Acoustic

model = open_model(Acoustic.model_validate({"model": "embedded:medasr-mini", "device": "cpu"}), 20.0)
print(*(len(said) for said in model.emit([np.zeros(16_000, np.int16), np.zeros(9_000, np.int16)])))
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""
    unwanted = ["transformers", "huggingface_hub", "scipy", "torch.distributed.tensor"]
    done = subprocess.run(
        [sys.executable, "-c", script, *unwanted, "dictalake.acoustic.lasr.model"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["22 11", "dictalake.acoustic.lasr.model"]


@pytest.mark.usefixtures("as_they_lie")
def test_sharded_weights_are_read_as_whole_ones_are(random_lasr: Path, folder: Path) -> None:
    shard(folder)
    assert torch.equal(logits(folder), logits(random_lasr))


@pytest.mark.usefixtures("as_they_lie")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_type_are_computed_with_in_float32(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda ts: {name: t.to(dtype) if t.is_floating_point() else t for name, t in ts.items()})
    expected = logits_of_transformers(folder)
    torch.testing.assert_close(logits(folder), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.usefixtures("as_they_lie")
def test_tensors_that_only_training_needs_may_be_there_or_not(random_lasr: Path, folder: Path) -> None:
    rewrite(folder, lambda ts: {name: t for name, t in ts.items() if "num_batches" not in name} | {"head2.bias": torch.ones(3)})
    assert torch.equal(logits(folder), logits(random_lasr))


def test_names_that_transformers_understands_are_understood(random_lasr: Path, folder: Path) -> None:
    rewrite(folder, lambda ts: {f"model.{name}": t for name, t in ts.items()})
    assert torch.equal(logits(folder), logits(random_lasr))


def test_scaled_positions_are_those_of_transformers(random_lasr: Path, folder: Path) -> None:
    configure(folder, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0})
    expected = logits_of_transformers(folder)
    torch.testing.assert_close(logits(folder), expected, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(expected, logits(random_lasr), atol=1e-2)


def test_other_weights_that_the_configuration_names_are_the_ones_read(random_lasr: Path, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "best.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "best.safetensors"}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(folder), logits(random_lasr))


# Damaged folders


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sharded", [False, True])
def test_missing_weights_are_counted_and_the_first_is_named(folder: Path, sharded: bool) -> None:
    rewrite(folder, lambda ts: {name: t for name, t in ts.items() if ".conv_0." not in name and ".out_norm." not in name})
    if sharded:
        shard(folder)
    message = r"^acoustic\.model: m lacks 3 weights of a CTC model, the first is encoder\.out_norm\.weight; a model that was"
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(folder)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_shape_are_counted_and_the_first_is_named(folder: Path) -> None:
    rewrite(folder, lambda ts: ts | {HEAD: ts[HEAD][:40], "ctc_head.bias": ts["ctc_head.bias"][:40]})
    message = (
        r"^acoustic\.model: m has 2 weights of another shape than its config\.json says, the first is ctc_head\.bias: "
        r"\(40,\), not \(\d+,\); the two must be of the same model$"
    )
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(folder)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_shape_are_named_in_other_architectures_too(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 12}
    convolutions = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, **convolutions)).save_pretrained(tmp_path / "m")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "m")
    assert isinstance(load_checkpoint(tmp_path / "m")[0], Wav2Vec2ForCTC)
    rewrite(tmp_path / "m", lambda ts: ts | {"lm_head.bias": ts["lm_head.bias"][:5]})
    with pytest.raises(ConfigError, match=r"m has 1 weights of another shape .* lm_head\.bias: \(5,\), not \(12,\)"):
        load_checkpoint(tmp_path / "m")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def break_the_index(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{")


def keep_only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "incomplete metadata, file not fully covered"),
        (lose_a_shard, r"No such file or directory: .*model-00002-of-00002\.safetensors"),
        (break_the_index, "Expecting property name"),
        (keep_only_a_pickle, r"no file named model\.safetensors"),
    ],
)
def test_damaged_weights_are_refused_in_one_line(folder: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(folder)
    message = rf"^acoustic\.model: m does not load as a Hugging Face CTC model: [^\n]*{reason}[^\n]*$"
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(folder)


def test_lasr_with_another_front_end_stays_transformers_own(folder: Path) -> None:
    """FastLasr takes what LogMel gives; such a model goes through its extractor."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    assert isinstance(load_checkpoint(folder)[0], LasrForCTC)
