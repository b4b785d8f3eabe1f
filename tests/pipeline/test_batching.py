"""Batches, order and distribution over workers do not change the text of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.recordings import DEMO_ARCHIVE, make_config, make_sound, read_rows, write_wav

# Seconds. Some are shorter than a window (20 s), some longer, one has exactly its length, one is too short for a frame.
LENGTHS_S = (0.05, 0.2, 1.7, 3.3, 7.5, 20.0, 20.5, 47.0)
SPOKEN = ("radiology/chest-0420.mp3", "cardiology/cath-0318.dcm")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sounds of many lengths, one of two channels, and a few dictations."""
    folder = tmp_path_factory.mktemp("lengths")
    paths = [write_wav(folder / f"{seconds}s.wav", make_sound(seconds, seed=i)) for i, seconds in enumerate(LENGTHS_S)]
    two_channels = np.stack([make_sound(24.0, seed=100), make_sound(24.0, seed=101)], axis=1)
    paths.append(write_wav(folder / "two_channels.wav", two_channels))
    return paths + [DEMO_ARCHIVE / name for name in SPOKEN]


def hear(recordings: Sequence[Path], model: Path, folder: Path, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name → row of a run over ``recordings`` in this order."""
    folder.mkdir(exist_ok=True)
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(["uri", *map(str, recordings)]), encoding="utf-8")
    archive = {"manifest": str(manifest), "allowed": sorted({str(path.parent) for path in recordings})}
    summary = transcribe(make_config(model, folder / "lake", archive=archive, **sections))
    assert (summary.ok, summary.failed) == (len(recordings), 0)
    return {Path(row["source"]["uri"]).name: row for row in read_rows(folder / "lake")}


@pytest.fixture(scope="module")
def one_by_one(
    two_cpus: Resources, recordings: list[Path], random_lasr: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Every window alone in the model, every recording alone in its block."""
    folder = tmp_path_factory.mktemp("one-by-one")
    return hear(recordings, random_lasr, folder, acoustic={"batch_s": 0.1}, ray={"block_rows": 1})


CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "all in one batch": {"acoustic": {"batch_s": 1000}, "ray": {"block_rows": 1000}},
    "two windows a batch, two actors of each kind": {
        "acoustic": {"batch_s": 40, "actors": 2, "cpus_per_actor": 0.25},
        "decoding": {"actors": 2},
        "ray": {"block_rows": 3},
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_batches_blocks_order_and_actors_do_not_change_the_words(
    one_by_one: dict[str, dict[str, Any]], recordings: list[Path], random_lasr: Path, tmp_path: Path, change: str
) -> None:
    # Each in an order of its own, so that every recording meets other ones in its batch.
    order = recordings[::-1] if change == "all in one batch" else recordings[::2] + recordings[1::2]
    assert_same(hear(order, random_lasr, tmp_path, **CHANGES[change]), one_by_one)


def test_the_recordings_are_worth_comparing(one_by_one: dict[str, dict[str, Any]], recordings: list[Path]) -> None:
    assert len({row["text_raw"] for row in one_by_one.values() if row["text_raw"]}) >= len(LENGTHS_S) - 2
    assert len(one_by_one["47.0s.wav"]["words"]) > 50
    assert one_by_one["47.0s.wav"]["words"][-1]["end_s"] > 45


def assert_same(got: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> None:
    """The same texts, words and times, to the bit; confidence to what float16 holds."""
    assert got.keys() == wanted.keys()
    for name, row in got.items():
        other = wanted[name]
        assert (row["text_raw"], row["text"], row["sections"]) == (other["text_raw"], other["text"], other["sections"]), name
        assert times(row) == times(other), name
        assert [w["confidence"] for w in row["words"]] == pytest.approx([w["confidence"] for w in other["words"]], abs=5e-3), (
            name
        )
        assert row["fingerprint"] == other["fingerprint"]


def times(row: dict[str, Any]) -> list[tuple[str, float, float, int]]:
    return [(word["word"], word["start_s"], word["end_s"], word["channel"]) for word in row["words"]]
