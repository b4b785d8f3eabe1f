"""Folders of models: how they are found, hashed and loaded, and clear words about bad ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dictalake.acoustic.checkpoint import find_checkpoint, find_folder, hash_folder, locate_lm
from dictalake.acoustic.ctc import CtcModel, choose_device, choose_dtype
from dictalake.acoustic.model import open_model
from dictalake.config.sections import Acoustic, Config
from dictalake.errors import ConfigError


def test_open_model_takes_the_kind(random_lasr: Path) -> None:
    model = open_model(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": "float32"}), 20.0)
    assert (model.device, model.dtype, model.grid.step) == ("cpu", "float32", 640)


def test_devices_and_types_are_chosen_by_what_is_there() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_dtype("float32", "cpu") == "float32"
    assert choose_dtype("auto", "cpu") in ("float32", "bfloat16")
    if not torch.cuda.is_available():
        assert choose_device("auto") == "cpu"
        with pytest.raises(ConfigError, match=r"^acoustic\.device = cuda, but PyTorch sees no GPU here; use cpu or auto"):
            choose_device("cuda")


def copy(folder: Path, target: Path, without: str) -> Acoustic:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(without))
    return Acoustic.model_validate({"model": str(target), "device": "cpu"})


def test_folders_that_hold_no_model_are_refused_in_one_line(random_lasr: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.model = \./nowhere/at/all: no such folder, and not a Hugging Face id"):
        find_folder(Acoustic.model_validate({"model": "./nowhere/at/all"}))
    with pytest.raises(
        ConfigError, match=r"^acoustic\.model = .*: no config\.json in it; expected a Hugging Face checkpoint folder$"
    ):
        find_folder(copy(random_lasr, tmp_path / "a", "config.json"))
    pickled = copy(random_lasr, tmp_path / "b", "*.safetensors")
    (tmp_path / "b" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(
        ConfigError, match=r"^acoustic\.model = .*: no model\.safetensors in it; other weight formats are refused$"
    ):
        find_folder(pickled)


@pytest.mark.parametrize("damage", ["weights", "type", "extractor"])
def test_models_that_do_not_load_are_refused_in_one_line(random_lasr: Path, tmp_path: Path, damage: str) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    if damage == "weights":
        (tmp_path / "m/model.safetensors").write_bytes(b"not safe at all, and not tensors")
    elif damage == "type":
        (tmp_path / "m/config.json").write_text('{"model_type": "gpt9"}')
    else:
        for name in ("preprocessor_config.json", "processor_config.json"):
            (tmp_path / "m" / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"^acoustic\.model: m does not load as a Hugging Face CTC model: [^\n]+$"):
        CtcModel.load(acoustic)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_missing_are_not_made_up(random_lasr: Path, tmp_path: Path) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    weights = load_file(tmp_path / "m/model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if "ctc_head" not in name}, tmp_path / "m/model.safetensors", {"format": "pt"}
    )
    message = r"^acoustic\.model: m lacks 2 weights of a CTC model, the first is ctc_head\.bias; a model that was never trained"
    with pytest.raises(ConfigError, match=message):
        CtcModel.load(acoustic)


def test_a_checkpoint_is_named_by_its_bytes(random_lasr: Path, tmp_path: Path) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    identity = find_checkpoint(acoustic).identity
    assert (identity.model_id, identity.revision) == (str(tmp_path / "m"), None)
    assert identity.sha256 == hash_folder(random_lasr)
    (tmp_path / "m/README.md").write_text("a word about it")
    assert hash_folder(tmp_path / "m") == identity.sha256
    tokenizer = tmp_path / "m/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert hash_folder(tmp_path / "m") != identity.sha256


def test_a_language_model_may_lie_in_the_models_folder(random_lasr: Path, tmp_path: Path) -> None:
    copy(random_lasr, tmp_path / "m", "nothing")
    config = Config.model_validate({"acoustic": {"model": str(tmp_path / "m")}, "decoding": {"lm": "model:lm_6.kenlm"}})
    with pytest.raises(ConfigError, match=r"^decoding\.lm = model:lm_6\.kenlm: .* holds no such file; give its path, or null"):
        locate_lm(config)
    (tmp_path / "m/lm_6.kenlm").touch()
    assert locate_lm(config).decoding.lm == str(tmp_path / "m/lm_6.kenlm")
    greedy = config.model_copy(update={"decoding": config.decoding.model_copy(update={"kind": "greedy"})})
    assert locate_lm(greedy) is greedy
