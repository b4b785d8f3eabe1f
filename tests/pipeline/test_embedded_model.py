"""The embedded model: what it may weigh, and that the demo, evaluation and batching hold with it and its language model."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path

import kenlm
import pytest
from safetensors import safe_open

from dictalake.cli.main import run_command
from dictalake.config.locations import ASSETS
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.recordings import DEMO_ARCHIVE, make_config, read_rows

MODEL = ASSETS / "medasr-mini"
# Of every kind: 8 kHz µ-law, two channels, MP3, more than a minute.
SPOKEN = ("medicine/ward-round.wav", "radiology/chest-0420.mp3", "cardiology/cath-0318.dcm", "radiology/ct-head-0415.flac")


def test_the_embedded_model_is_small_and_has_a_six_gram_over_its_pieces() -> None:
    with safe_open(MODEL / "model.safetensors", "pt") as weights:
        learnt = [name for name in list(weights.keys()) if "running_" not in name and "num_batches" not in name]
        assert sum(prod(weights.get_slice(name).get_shape()) for name in learnt) <= 8e6
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 40e6
    assert kenlm.Model(str(MODEL / "lm_6.kenlm")).order == 6


def test_the_demo_understands_most_words_and_shows_every_file(demo_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("demo", ["--lake.uri", str(demo_lake)]) == 0
    shown = capsys.readouterr().out
    files = [path.relative_to(DEMO_ARCHIVE).as_posix() for path in DEMO_ARCHIVE.rglob("*") if path.is_file()]
    assert [name for name in files if name not in shown] == []
    greedy, with_lm = (float(rate) for rate in re.findall(r"WER +([\d.]+) %", shown))
    assert with_lm < greedy < 50
    assert with_lm < 25


def test_evaluation_scores_the_same_rows_by_voice(demo_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = "embedded:demo-archive/references.csv"
    arguments = ["--archive.manifest", manifest, "--lake.uri", str(demo_lake), "--by", "voice"]
    arguments += ["--normaliser", "medasr", "--format", "json"]
    assert run_command("evaluate", arguments) == 3  # two recordings failed
    systems = json.loads(capsys.readouterr().out)["systems"]
    assert set(systems) == {"greedy", "lm"}
    for of_normaliser in systems.values():
        total = of_normaliser["medasr"]
        voices = total["by"]["voice"].values()
        assert len(voices) >= 8
        for count in ("utterances", "reference_words", "substitutions", "deletions", "insertions"):
            assert sum(voice[count] for voice in voices) == total[count]
        assert total["wer"] < 0.5


def test_batches_and_order_change_neither_words_nor_times_of_the_beam(two_cpus: Resources, tmp_path: Path) -> None:
    heard = []
    for number, (batch_s, block_rows, paths) in enumerate(((0.1, 1, SPOKEN), (1000, 100, SPOKEN[::-1]))):
        manifest = tmp_path / f"{number}.csv"
        manifest.write_text("\n".join(["uri", *(str(DEMO_ARCHIVE / path) for path in paths)]), encoding="utf-8")
        config = make_config(
            MODEL,
            tmp_path / f"lake-{number}",
            archive={"manifest": str(manifest), "allowed": str(DEMO_ARCHIVE)},
            acoustic={"batch_s": batch_s},
            decoding={"kind": "beam"},
            ray={"block_rows": block_rows},
        )
        assert transcribe(config).ok == len(SPOKEN)
        rows = read_rows(tmp_path / f"lake-{number}")
        heard.append([[(w["word"], w["start_s"], w["end_s"], w["channel"]) for w in row["words"]] for row in rows])
    assert heard[0] == heard[1]
    assert all(len(words) > 5 for words in heard[0])
