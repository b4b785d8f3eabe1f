"""``conf/medasr.yaml`` on the whole architecture: 105 M parameters with random weights, saved as a folder."""

from __future__ import annotations

import shutil
from hashlib import sha256
from math import prod
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from dictalake.cli.main import run_command
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.workflow.plan import Resources
from tests.models import save_random_lasr, write_arpa
from tests.recordings import make_sound, read_rows, write_wav


def test_medasr_configuration_runs_the_full_architecture(
    two_cpus: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_random_lasr(tmp_path / "medasr", full_size=True)
    write_wav(tmp_path / "archive/short.wav", make_sound(1.0, seed=1))
    write_wav(tmp_path / "archive/longer.wav", make_sound(4.0, seed=2))
    words = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(model), 512, 0).lm_words().values()
    write_arpa(model / "lm_6.kenlm", {word: -2.0 - len(word) / 10 for word in words}, {})
    options = {
        "--config": "medasr",
        "--acoustic.model": str(model),
        "--acoustic.device": "cpu",
        "--archive.uri": str(tmp_path / "archive"),
        "--lake.uri": str(tmp_path / "lake"),
    }

    assert run_command("backfill", [text for option in options.items() for text in option]) == 0

    assert " 2 " in next(line for line in capsys.readouterr().out.splitlines() if "transcribed" in line)
    rows = read_rows(tmp_path / "lake")
    assert [(Path(row["source"]["uri"]).name, row["status"]) for row in rows] == [("longer.wav", "ok"), ("short.wav", "ok")]
    assert all(row["text_raw"] for row in rows)
    assert {row["provenance"]["model_id"] for row in rows} == {str(model)}
    assert {row["provenance"]["lm_sha256"] for row in rows} == {sha256((model / "lm_6.kenlm").read_bytes()).hexdigest()}
    assert all(row["provenance"]["decoder"] for row in rows)
    assert 100e6 < count_parameters(model) < 110e6
    shutil.rmtree(model)  # 420 MB


def count_parameters(folder: Path) -> int:
    """Learnt numbers in the weights; running averages of normalisation layers are not among them."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        learnt = [name for name in list(weights.keys()) if "running_" not in name and "num_batches" not in name]
        return sum(prod(weights.get_slice(name).get_shape()) for name in learnt)
