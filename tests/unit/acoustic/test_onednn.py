"""PyTorch's private operators behind one door: used where they are right, and done without where they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dictalake.acoustic import onednn
from dictalake.acoustic.ctc import CtcModel
from dictalake.config.locations import PACKAGE
from dictalake.config.sections import Acoustic
from tests.recordings import make_sound


@pytest.fixture
def asked_anew() -> Any:
    onednn.can_multiply.cache_clear()
    yield
    onednn.can_multiply.cache_clear()


def test_no_other_file_calls_private_operators() -> None:
    calls = {path.name for path in PACKAGE.rglob("*.py") if "torch.ops." in path.read_text(encoding="utf-8")}
    assert calls == {"onednn.py"}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
def test_the_installed_pytorch_has_operators_that_are_right(asked_anew: None) -> None:
    assert onednn.can_multiply()


def listen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings from here on."""
    warnings: list[str] = []
    monkeypatch.setattr(logging.getLogger("dictalake"), "warning", lambda message, **_: warnings.append(message))
    return warnings


def miss(*_: Any) -> torch.Tensor:
    raise TypeError("_linear_pointwise() expected at most 5 arguments")


OTHERS: dict[str, Callable[[], Any]] = {
    "no such operators": SimpleNamespace,
    "other arguments": lambda: SimpleNamespace(_reorder_linear_weight=lambda weight: weight, _linear_pointwise=miss),
    "other results": lambda: SimpleNamespace(
        _reorder_linear_weight=lambda weight: weight, _linear_pointwise=lambda x, packed, *_: x @ packed.T
    ),
}


@pytest.mark.parametrize("how", OTHERS)
def test_another_pytorch_gives_the_same_numbers_by_the_usual_product(
    random_lasr: Path, monkeypatch: pytest.MonkeyPatch, asked_anew: None, how: str
) -> None:
    warnings = listen(monkeypatch)
    windows = [np.rint(make_sound(1.0, seed=1) * 32_767).astype(np.int16)]
    keys = Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": "float32"})
    expected = CtcModel.load(keys).emit(windows)[0]
    onednn.can_multiply.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", OTHERS[how]())
    assert not onednn.can_multiply()
    assert CtcModel.load(keys).emit(windows)[0] == pytest.approx(expected, abs=1e-3)
    (warning,) = warnings
    assert "without weights packed for oneDNN" in warning


def test_sums_in_another_order_are_still_right(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    def multiply(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, name: str, *_: Any) -> torch.Tensor:
        activate = next(activate for fused, activate in onednn.ACTIVATIONS.values() if fused == name)
        return activate(torch.nn.functional.linear(x, packed, bias)) + 5e-6  # what a sum of 16 numbers may lose

    others = SimpleNamespace(_reorder_linear_weight=lambda weight: weight, _linear_pointwise=multiply)
    monkeypatch.setattr(torch.ops, "mkldnn", others)
    warnings = listen(monkeypatch)
    assert onednn.can_multiply()
    assert warnings == []
