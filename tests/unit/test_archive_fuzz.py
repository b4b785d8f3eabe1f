"""A short, seeded part of `make fuzz`."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import LIMITS, make_seeds, run


def test_mutants_of_every_kind_of_file_give_one_row_each(tmp_path: Path) -> None:
    report = run(1_000, 7, tmp_path)
    assert report.bad == []
    assert (report.rows, report.mutants) == (1_000, 1_000)
    assert report.reasons["ok"] > 100, "hardly a mutant was audio: the seeds are broken"
    assert report.reasons["corrupt_audio"] > 100, "hardly a mutant was damaged: the mutations are too weak"
    assert report.peak_child_mb < LIMITS["decode_mb"] + 300


def test_every_seed_is_what_it_should_be(tmp_path: Path) -> None:
    from pipelines.archive import read_audio
    from pipelines.errors import NotAudio

    for name, data in make_seeds().items():
        try:
            assert read_audio(data, "r1").samples.shape[1] > 0, name
        except NotAudio:
            assert name == "text"
