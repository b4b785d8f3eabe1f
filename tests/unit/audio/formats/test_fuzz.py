"""A short, seeded part of `make fuzz`."""

from __future__ import annotations

from pathlib import Path

from dictalake.archive.unpack import KINDS
from dictalake.audio.formats.read_audio import read_audio, sniff
from dictalake.errors import TranscriptionError
from tests.fuzz import LIMITS, make_seeds, run


def test_mutants_of_every_kind_of_file_give_one_row_each(tmp_path: Path) -> None:
    report = run(range(1_000), 7, tmp_path)
    assert report.bad == []
    assert (report.mutants, report.wrong) == (1_000, [])
    assert report.rows >= 1_000
    assert report.reasons["ok"] > 100, "hardly a mutant was audio: the seeds are broken"
    assert report.reasons["corrupt_audio"] > 100, "hardly a mutant was damaged: the mutations are too weak"
    assert report.faults == [], "a second of a known sound is not accounted for"
    assert report.known["true"] > 100, "hardly a known sound was read: the damages are too strong"
    assert report.peak_child_mb < LIMITS["decode_mb"] + 300


def test_nearly_every_seed_is_read() -> None:
    """Some of the compressed ones are cut off, so that they are short, and need not be."""
    seeds = {name: data for name, data in make_seeds().items() if sniff(data) not in KINDS}
    unread = set()
    for name, data in seeds.items():
        try:
            assert read_audio(data, "r1").samples.shape[1] > 0, name
        except TranscriptionError:
            unread.add(name)
    assert "text" in unread
    assert len(unread) <= 0.1 * len(seeds), unread
