"""The probe tries bfloat16 and does not trust flags; without bfloat16 the model runs in float32, with a warning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dictalake.acoustic import bfloat16_probe, device, fastest_way
from dictalake.acoustic.bfloat16_probe import Bfloat16, run_probe, try_bfloat16
from dictalake.acoustic.checkpoint import ModelIdentity
from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.device import choose_dtype, explain_dtype
from dictalake.acoustic.lasr import model as lasr_model
from dictalake.acoustic.slow_dtype import explain_slow_dtype
from dictalake.config.sections import Acoustic, Config
from dictalake.workflow import identity
from tests.recordings import make_sound

SAYS = "print('plain', flush=True); "


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("print('plain'); print('packed')", ("packed", True)),
        (SAYS.removesuffix("; "), ("plain", True)),
        (SAYS + "raise RuntimeError", ("plain", False)),  # out of memory, or PyTorch cannot be imported
        (SAYS + "import os, signal; os.kill(os.getpid(), signal.SIGILL)", ("plain", True)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", ("none", True)),
        (SAYS + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ("plain", False)),
    ],
)
def test_the_last_thing_that_worked_counts_however_the_child_ends(
    tmp_path: Path, script: str, outcome: tuple[Bfloat16, bool]
) -> None:
    (tmp_path / "probe.py").write_text(script)
    assert run_probe(tmp_path / "probe.py") == outcome


def test_instructions_that_are_hidden_from_onednn_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert run_probe() == ("plain", True)


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Bfloat16, bool]]]:
    """The answers of the children, one after the other, and an empty folder for the stored answer."""
    coming: list[tuple[Bfloat16, bool]] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bfloat16_probe, "run_probe", lambda: coming.pop(0))
    yield coming
    assert coming == []


def ask_in_a_new_process() -> Bfloat16:
    return try_bfloat16.__wrapped__()


@pytest.mark.skipif(not bfloat16_probe._BOOT_ID.exists(), reason="this system has no id for a boot: each process asks")
def test_a_machine_is_asked_once_a_boot_and_again_under_other_settings(
    answers: list[tuple[Bfloat16, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [("packed", True), ("none", True), ("plain", False), ("plain", True)]
    assert [ask_in_a_new_process() for _ in range(3)] == ["packed"] * 3
    (kept,) = tmp_path.iterdir()
    kept.write_text("damaged")
    assert [ask_in_a_new_process() for _ in range(2)] == ["none"] * 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "a value of this test")
    assert [ask_in_a_new_process() for _ in range(3)] == ["plain"] * 3  # the first was not final


def set_machine(monkeypatch: pytest.MonkeyPatch, outcome: Bfloat16, *, is_native: bool) -> None:
    for module in (device, fastest_way):
        monkeypatch.setattr(module, "try_bfloat16", lambda: outcome)
    monkeypatch.setattr(device, "_is_native", lambda _: is_native)


@pytest.mark.parametrize(
    ("outcome", "is_native", "auto", "asked", "warning"),
    [
        ("packed", True, "bfloat16", "bfloat16", None),
        ("packed", False, "float32", "bfloat16", "runs in it slowly"),
        ("plain", True, "float32", "bfloat16", "runs in it slowly"),
        ("none", True, "float32", "float32", "runs in float32"),
    ],
)
def test_what_a_machine_cannot_do_is_done_slowly_or_in_float32_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, outcome: Bfloat16, is_native: bool, auto: str, asked: str, warning: str | None
) -> None:
    set_machine(monkeypatch, outcome, is_native=is_native)
    assert (choose_dtype("auto", "cpu"), choose_dtype("bfloat16", "cpu")) == (auto, asked)
    assert choose_dtype("float32", "cpu") == "float32"
    said = explain_dtype("bfloat16", "cpu")
    assert said is None if warning is None else (said or "").startswith("acoustic.dtype = bfloat16: ") and warning in str(said)
    assert explain_dtype("auto", "cpu") is explain_dtype("float32", "cpu") is None


def test_float32_asks_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Bfloat16:
        raise AssertionError("a child was asked")

    monkeypatch.setattr(device, "try_bfloat16", refuse)
    assert choose_dtype("float32", "cpu") == "float32"
    assert explain_slow_dtype(Acoustic.model_validate({"dtype": "float32", "device": "cpu"})) is None


@pytest.mark.parametrize(("outcome", "runs"), [("plain", "bfloat16"), ("none", "float32")])
def test_a_model_runs_where_bfloat16_cannot_be_packed_and_names_what_ran(
    random_lasr: Path, monkeypatch: pytest.MonkeyPatch, outcome: Bfloat16, runs: str
) -> None:
    windows = [np.rint(make_sound(2.0, seed) * 32_767).astype(np.int16) for seed in range(3)]
    keys = {"model": str(random_lasr), "device": "cpu"}
    wanted = CtcModel.load(Acoustic.model_validate(keys | {"dtype": "float32"})).emit(windows)
    set_machine(monkeypatch, outcome, is_native=False)
    monkeypatch.setattr(lasr_model._Product, "pack", refuse_to_pack_bfloat16(lasr_model._Product.pack))
    model = CtcModel.load(Acoustic.model_validate(keys | {"dtype": "bfloat16"}))
    assert model.dtype == runs
    for got, expected in zip(model.emit(windows), wanted, strict=True):
        assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def refuse_to_pack_bfloat16(pack):  # type: ignore[no-untyped-def]
    """As oneDNN does on processors without AVX-512."""

    def pack_or_refuse(product: lasr_model._Product) -> None:
        if "bfloat16" in str(product.weight.dtype):
            raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support")
        pack(product)

    return pack_or_refuse


@pytest.mark.parametrize("address", [None, "ray://head:10001"])
def test_the_one_who_starts_a_run_is_warned_where_the_run_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    set_machine(monkeypatch, "plain", is_native=False)
    config = Config.model_validate({"acoustic": {"dtype": "bfloat16", "device": "cpu"}, "ray": {"address": address}})
    warned: list[str] = []
    monkeypatch.setattr(identity.logging.getLogger("dictalake"), "warning", lambda line, **_: warned.append(line))
    checkpoint = identity.Checkpoint(Path(), ModelIdentity("m", None, "0" * 64))
    identity.identify(config.model_copy(update={"decoding": config.decoding.model_copy(update={"lm": None})}), checkpoint)
    assert len(warned) == (address is None)
    assert all("acoustic.dtype = bfloat16" in line for line in warned)


def test_whisper_computes_in_float32_where_ctranslate2_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    from dictalake.acoustic.engines.whisper import choose_compute_type

    asked = Acoustic.model_validate({"kind": "whisper", "dtype": "bfloat16", "device": "cpu"})
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda _: {"int8", "float32"})
    assert choose_compute_type("bfloat16", "cpu") == "float32"
    assert "CTranslate2 has no bfloat16 on this processor, so the model runs in float32" in str(explain_slow_dtype(asked))
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda _: {"bfloat16", "float32"})
    assert choose_compute_type("bfloat16", "cpu") == "bfloat16"
    assert explain_slow_dtype(asked) is None
    assert [choose_compute_type(dtype, "cpu") for dtype in ("auto", "float32")] == ["default", "float32"]
