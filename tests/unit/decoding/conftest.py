"""Fixtures of the tests of beam search: both engines, and a language model of random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import cast

import numpy as np
import pytest

from tests.beam_inputs import LABELS
from tests.models import write_arpa


@pytest.fixture(params=["native", "pyctcdecode"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "pyctcdecode":
        pytest.importorskip("pyctcdecode")
    return str(request.param)


@pytest.fixture
def pyctcdecode() -> ModuleType:
    """What the engines are compared with. It does not install on Python 3.13."""
    return cast(ModuleType, pytest.importorskip("pyctcdecode"))


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Language models as arrays are kept in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def random_lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(7)
    words = [label[1:] for label in LABELS[3:]]
    unigrams = {word: -1.0 - 2 * rng.random() for word in words}
    bigrams = {(a, b): -2 * rng.random() for a in words for b in words if rng.random() < 0.3}
    return write_arpa(tmp_path_factory.mktemp("lm") / "lm.kenlm", unigrams, bigrams)
