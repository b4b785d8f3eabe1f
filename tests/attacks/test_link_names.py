"""Links whose own name is what a listing or a manifest asks for: what they lead to is listed, at a bounded cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dictalake.archive import folders
from dictalake.archive.manifest import find_recordings
from dictalake.config.sections import Archive
from dictalake.workflow import columns
from tests.attacks.conftest import GOOD
from tests.attacks.test_local_archives import look, names


def test_a_folder_link_whose_name_alone_is_asked_for_lists_what_is_below_it(root: Path) -> None:
    """As a store that keeps each month somewhere else."""
    for name in ("1.wav", "day/2.wav"):
        (root / ".data/m11" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / ".data/m11" / name).write_bytes(name.encode())
    (root / ".data/m11/3.wav").symlink_to("../../a.wav")
    (root / ".data/m11/round").symlink_to("..")
    os.mkfifo(root / ".data/m11/pipe")
    (root / "2026-11").symlink_to(".data/m11")
    (root / "other").symlink_to(".data/m11")
    found, findings = look(root, include=["2026*/**"])
    assert names(found, root) == [".data/m11/1.wav", "a.wav", ".data/m11/day/2.wav"]
    assert [one.old_uris for one in found] == [(f"file://{root}/2026-11/{n}.wav",) for n in ("1", "3", "day/2")]
    assert (findings.aliases, findings.left_out, findings.unread_folders) == (4, {folders.SPECIAL: 1}, {})
    assert {one.recording_id for one in found} <= {one.recording_id for one in look(root)[0]}
    both, _ = look(root, include=["2026*/**", ".data/**"])
    assert set(names(both, root)) == {".data/m11/1.wav", ".data/m11/day/2.wav", "a.wav"}
    assert names(both, root).count(".data/m11/1.wav") == 1


def test_links_to_folders_above_each_other_do_not_have_the_archive_listed_for_each_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (root / f"2026-{number:03}").symlink_to("ward" if number % 2 else "ward/deep")
    looks, real = [], os.lstat
    monkeypatch.setattr(folders.os, "lstat", lambda path: looks.append(path) or real(path))
    found, findings = look(root, include=["2026*/**"])
    assert {one.uri for one in found} == {f"file://{root}/{name}" for name in GOOD[1:]}
    assert len(looks) < 250
    assert findings.unread_folders == {}, "each folder was listed by one of the names, and the others add nothing"


@pytest.mark.parametrize("include", ["**", "**/*.wav", "*/*.wav", "*/**", "*/*.wav,dept*/*.wav"])
def test_harmless_links_to_one_folder_are_aliases_and_cost_nothing(root: Path, include: str) -> None:
    for number in range(9):
        (root / f"dept{number}").symlink_to("ward")
    found, findings = look(root, include=include.split(","))
    assert set(names(found, root)) <= set(GOOD)
    assert names(found, root).count("ward/b.wav") == 1
    assert (findings.aliases, findings.unread_folders) == (9, {})


def test_links_below_a_folder_that_was_reached_by_a_link_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "real").mkdir()
    (root / "store/2026").mkdir(parents=True)
    (root / "store/2026/1.wav").write_bytes(b"one")
    (root / "current").symlink_to("real")
    for name, target in {
        "2026": "../store/2026",
        "up": "..",
        "gone.wav": "nowhere",
        "out.wav": "../../elsewhere/secret.wav",
    }.items():
        (root / "real" / name).symlink_to(target)
    (root / "store/2026/back").symlink_to("../../real")
    found, findings = look(root, include=["current/**"])
    assert sorted(names(found, root)) == ["real/gone.wav", "store/2026/1.wav"]
    assert (findings.aliases, findings.left_out, findings.unread_folders) == (4, {folders.LINK_OUTSIDE: 1}, {})
    found, _ = look(root, include=["current/**"], follow_links=True)
    assert sorted(one.uri for one in found)[-1] == f"file://{tmp_path}/elsewhere/secret.wav"
    assert len(found) == 3
    assert names(look(root)[0], root).count("real/gone.wav") == 1


def test_a_followed_folder_is_listed_by_each_name_by_which_the_globs_ask_for_something_else(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("2.mp3", "deep/3.mp3"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_bytes(b"sound")
    (elsewhere / "round").symlink_to(".")
    os.mkfifo(elsewhere / "pipe")
    for number in range(9):
        for name in "ab":
            (root / f"{name}{number}").symlink_to("../elsewhere")
    found, findings = look(root, follow_links=True, include=["a*/*.wav", "b*/**/*.mp3"])
    assert [one.uri.removeprefix(f"file://{elsewhere}/") for one in found] == ["secret.wav", "2.mp3", "deep/3.mp3"]
    assert (findings.aliases, findings.left_out, findings.unread_folders) == (18, {folders.SPECIAL: 1}, {})


def test_a_link_of_another_ending_says_how_headerless_sound_is_read(root: Path) -> None:
    (root / ".store").mkdir()
    (root / ".store/cdef").write_bytes(b"sound")
    (root / "ward/0001.vox").symlink_to("../.store/cdef")
    (root / "ward/0002.smith").symlink_to("../.store/cdef")
    (root / "list.csv").write_text("uri\nward/0001.vox\nward/0002.smith\n")
    for keys in ({"include": ["**/*.vox"]}, {"manifest": str(root / "list.csv")}):
        archive = Archive.model_validate({"uri": str(root), "vox_rate_hz": 8_000, **keys})
        ((first, *_),) = [list(find_recordings(archive))]
        assert (first.uri, first.ending) == (f"file://{root}/.store/cdef", "vox")
        assert columns.table_to_recordings(columns.recordings_to_table([first]))[0].ending == "vox"
    (by_name,), _ = look(root, include=["**/*.smith"], vox_rate_hz=8_000)
    assert by_name.ending is None, "nothing is kept of a name that says nothing about sound"
    assert look(root, include=["**/*.vox"])[0][0].ending is None


def test_an_archive_that_is_itself_a_link_to_headerless_sound_is_read_by_the_name_of_the_link(root: Path) -> None:
    (root / "cdef").write_bytes(b"sound")
    (root / "note.vox").symlink_to("cdef")
    for include in ("**", "*.vox", "cdef"):
        (found,), _ = look(root / "note.vox", include=[include], vox_rate_hz=8_000)
        assert (found.uri, found.ending, found.old_uris) == (f"file://{root}/cdef", "vox", (f"file://{root}/note.vox",))
    assert look(root / "note.vox", include=["*.wav"])[0] == []


def test_a_followed_link_out_of_the_archive_counts_by_the_name_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    for name in ("1-first", "2026-11"):
        (root / name).symlink_to("../elsewhere")
    found, _ = look(root, follow_links=True, include=["2026*/**"])
    assert [one.uri for one in found] == [f"file://{tmp_path}/elsewhere/secret.wav"]
