"""A folder that somebody else writes to: whatever lies in it, each file of the archive is listed once, and nothing else is."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dictalake.archive import folders, listing, storage
from dictalake.archive.fetch import fetch
from dictalake.archive.findings import Findings
from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Archive
from dictalake.config.uris import resolve_links
from dictalake.errors import ChangedDuringRead, ConfigError
from dictalake.records import Recording
from tests.attacks.conftest import GOOD


@pytest.fixture
def deep(root: Path) -> Iterator[Path]:
    """A folder that Python's own way to remove folders, which pytest takes, would not get rid of."""
    yield root
    subprocess.run(["rm", "-rf", root], check=True)


def look(root: Path | str, **keys: Any) -> tuple[list[Recording], Findings]:
    findings = Findings()
    return list(list_recordings(Archive.model_validate({"uri": str(root), **keys}), findings)), findings


def names(recordings: list[Recording], root: Path) -> list[str]:
    return [recording.uri.removeprefix(f"file://{root}/") for recording in recordings]


def reasons(recordings: list[Recording], root: Path) -> dict[str, str | None]:
    """Of what is no good file: the reason of its row; ``missing`` where fetching it says the reason."""
    bad = [one for one in recordings if one.error is not None or one.version == "missing"]
    return {
        name: one.version if one.error is None else one.error.reason for name, one in zip(names(bad, root), bad, strict=True)
    }


# -- links -------------------------------------------------------------------------------------------------------------


def test_a_link_to_something_in_the_archive_is_counted_and_is_no_second_recording(root: Path) -> None:
    (root / "00-current").symlink_to("ward")  # the first of all names: older versions walked the folder under it
    (root / "again.wav").symlink_to("a.wav")
    (root / "absolute.wav").symlink_to(root / "a.wav")
    (root / "ward/up").symlink_to("..")
    found, findings = look(root)
    assert names(found, root) == GOOD
    assert (findings.aliases, findings.left_out, findings.unread_folders) == (4, {}, {})


@pytest.mark.parametrize(
    "target",
    ["../../elsewhere", "../../elsewhere/secret.wav", "/etc/passwd", "/dev/zero", "/proc/kmsg", "/proc/self", "/proc/self/fd"],
)
def test_a_link_out_of_the_archive_is_one_counted_finding(root: Path, target: str) -> None:
    (root / "ward/link").symlink_to(target)
    found, findings = look(root)
    assert names(found, root) == GOOD
    assert (findings.aliases, findings.left_out) == (0, {folders.LINK_OUTSIDE: 1})


def test_links_out_of_the_archive_are_a_warning_of_each_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(listing.logs, "log_event", lambda event, line, **_: lines.append(line))
    look(root)
    assert lines == []
    (root / "one").symlink_to("../elsewhere")
    (root / "two").symlink_to("../elsewhere/secret.wav")
    look(root, include=["**/*.mp3"])
    assert lines == ["2 links lead out of the archive; archive.follow_links: true follows them"]


def test_links_out_of_the_archive_are_followed_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    (root / "ward/link").symlink_to("../../elsewhere")
    (root / "ward/once-more").symlink_to("../../elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(root)
    (root / "zero").symlink_to("/dev/zero")
    found, findings = look(root, follow_links=True)
    outside = f"file://{tmp_path}/elsewhere/secret.wav"
    assert [one.uri for one in found] == [*(f"file://{root}/{name}" for name in GOOD), outside]
    assert (findings.aliases, findings.left_out) == (3, {folders.SPECIAL: 1})
    assert [one.uri for one in look(root, follow_links=True, include=["ward/link/*.wav"])[0]] == [outside]


def test_a_followed_link_is_known_by_the_name_that_older_versions_gave_it(root: Path, tmp_path: Path) -> None:
    (root / "ward/link.wav").symlink_to("../../elsewhere/secret.wav")
    found, _ = look(root, follow_links=True)
    assert {one.uri: one.old_uris for one in found if one.old_uris} == {
        f"file://{tmp_path}/elsewhere/secret.wav": (f"file://{root}/ward/link.wav",)
    }


def test_a_link_whose_name_is_asked_for_lists_what_it_leads_to_if_that_has_another_name(root: Path) -> None:
    """As git-annex and DVC keep files."""
    (root / ".store").mkdir()
    (root / ".store/cdef").write_bytes(b"kept by its content")
    (root / "ward/0001.wav").symlink_to("../.store/cdef")
    (root / "ward/0002.wav").symlink_to("../a.wav")
    found, findings = look(root, include=["**/*.wav"])
    assert sorted(names(found, root)) == sorted([*GOOD, ".store/cdef"])
    assert findings.aliases == 2
    (by_link,) = [one for one in found if one.old_uris]
    assert by_link.old_uris == (f"file://{root}/ward/0001.wav",)
    (only,), _ = look(root, include=[".store/*"])
    assert only.recording_id == by_link.recording_id
    assert len(look(root)[0]) == len(GOOD) + 1


def test_a_link_to_nothing_and_links_in_a_ring_are_rows_of_their_own(root: Path) -> None:
    for name, target in {
        "gone.wav": "nowhere.wav",
        "itself": "itself",
        "one": "other",
        "other": "one",
        "in-file": "a.wav/b",
    }.items():
        (root / name).symlink_to(target)
    found, findings = look(root)
    assert reasons(found, root) == {
        "gone.wav": "missing",
        "in-file": "missing",
        "itself": "link_loop",
        "one": "link_loop",
        "other": "link_loop",
    }
    assert len(found) == len(GOOD) + 5
    assert findings == Findings(has_entries=True)


def test_a_chain_of_links_is_a_link_loop_where_the_system_follows_it_no_further(root: Path) -> None:
    for number in range(1_000):
        (root / f"link{number:04}").symlink_to(f"link{number + 1:04}" if number < 999 else "a.wav")
    (root / "round").symlink_to("missing/../link0000")
    begin = time.monotonic()
    found, findings = look(root)
    assert time.monotonic() - begin < 2
    assert findings.aliases == 40
    assert reasons(found, root) == {f"link{number:04}": "link_loop" for number in range(960)} | {"round": "missing"}


def test_links_that_double_at_each_step_are_given_up_as_the_system_does(root: Path) -> None:
    for number in range(30):
        (root / f"twice{number}").symlink_to(f"twice{number + 1}/../twice{number + 1}" if number < 29 else "ward")
    begin = time.monotonic()
    assert resolve_links(f"{root}/twice0") == f"{root}/twice0"
    assert resolve_links(f"{root}/twice28/b.wav") == f"{root}/ward/b.wav"
    assert time.monotonic() - begin < 1


def test_the_root_itself_may_be_a_link_and_the_uris_are_without_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "today").symlink_to(root)
    for spelled in (tmp_path / "today", f"{tmp_path}//today/", f"{root}/ward/..", f"file:{root}", f"file://localhost{root}"):
        found, findings = look(spelled)
        assert [one.uri for one in found] == [f"file://{root}/{name}" for name in GOOD]
        assert (findings.left_out, findings.unread_folders) == ({}, {})
    (single,), _ = look(tmp_path / "today/a.wav")
    assert single == look(root)[0][0] or single.recording_id == look(root)[0][0].recording_id


# -- other entries -----------------------------------------------------------------------------------------------------


def test_pipes_and_sockets_are_counted_and_never_opened(root: Path) -> None:
    os.mkfifo(root / "pipe.wav")
    os.mkfifo(root / "ward/pipe.wav")
    found, findings = look(root)
    assert names(found, root) == GOOD
    assert findings.left_out == {folders.SPECIAL: 2}


def test_a_root_that_is_a_pipe_or_a_device_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe.wav")
    for place in (root / "pipe.wav", "/dev/zero"):
        with pytest.raises(ConfigError, match="a pipe or a device"):
            look(place)


def test_folders_of_any_depth_are_listed(deep: Path) -> None:
    """Deeper than Python calls functions, and then deeper than the system takes a path."""
    root, depth, here = deep, 1_100, os.open(deep, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("e.wav", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    found, findings = look(root)
    assert names(found, root) == ["a.wav", "d/" * depth + "e.wav", *GOOD[1:]]
    assert findings == Findings(has_entries=True)

    long = "n" * 200
    for _ in range(12):
        os.mkdir(long, dir_fd=here)
        inner = os.open(long, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("f.wav", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found, findings = look(root)
    assert len(found) == len(GOOD) + 1
    assert findings.unread_folders == {"name_too_long": 1}


def test_a_file_whose_path_is_too_long_is_a_row(deep: Path) -> None:
    root, here = deep, os.open(deep, os.O_RDONLY)
    while True:
        path = os.readlink(f"/proc/self/fd/{here}")
        length = min(200, 4_000 - len(path))
        if length < 10:
            break
        os.mkdir("n" * length, dir_fd=here)
        inner = os.open("n" * length, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("m" * 200, os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(os.open("x.wav", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found, findings = look(root)
    assert sorted(reasons(found, root).values()) == ["name_too_long"]
    assert len(found) == len(GOOD) + 2
    assert findings == Findings(has_entries=True)


def test_a_folder_that_cannot_be_read_is_counted_with_its_reason_and_the_others_are_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folders.open_folder

    def refuse(at: str, below: str) -> int:
        if below == "ward/deep":
            raise PermissionError(errno.EACCES, "Permission denied")
        if below == "gone":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if below == "swapped":
            raise folders.OutsideError(errno.EXDEV, "it leads out of the archive")
        return real(at, below)

    for name in ("gone", "swapped"):
        (root / name).mkdir()
    monkeypatch.setattr(folders, "open_folder", refuse)
    found, findings = look(root)
    assert names(found, root) == GOOD[:2]
    assert findings.unread_folders == {"no_permission": 1, "vanished": 1, "replaced": 1}


def test_a_folder_that_is_swapped_for_a_link_is_not_walked_outside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = folders.open_folder

    def swap(at: str, below: str) -> int:
        if below == "ward":
            (root / "ward").rename(root.parent / "ward-before")
            (root / "ward").symlink_to("../elsewhere")
        return real(at, below)

    monkeypatch.setattr(folders, "open_folder", swap)
    found, findings = look(root)
    assert names(found, root) == ["a.wav"]
    assert findings.unread_folders == {"replaced": 1}


def test_entries_that_the_system_says_nothing_of_are_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: dict[str, Exception] = {
        "ward/b.wav": OSError(errno.EIO, "Input/output error"),
        "ward/denied.wav": PermissionError(errno.EACCES, "Permission denied"),
        "ward/odd.wav": OverflowError("timestamp out of range"),
        "ward/vanished.wav": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    }
    for name in failures:
        (root / name).touch()
    real = os.lstat

    def fail(path: str) -> os.stat_result:
        error = failures.get(str(path).removeprefix(f"{root}/"))
        if error is not None:
            raise error
        return real(path)

    monkeypatch.setattr(folders.os, "lstat", fail)
    found, findings = look(root)
    assert reasons(found, root) == {
        "ward/b.wav": "entry_failed",
        "ward/denied.wav": "access_denied",
        "ward/odd.wav": "entry_failed",
        "ward/vanished.wav": "missing",
    }
    assert len(found) == len(GOOD) + 3
    assert findings == Findings(has_entries=True)
    assert "b.wav" not in str([one.error for one in found])


def test_a_time_that_no_calendar_has_costs_nothing() -> None:
    """Not every disk keeps such a time, so none is written."""
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 5, 2**40, 2**40, 2**40))
    state = storage.make_local_state(status)
    assert (state.size_bytes, state.modified_at) == (5, None)


def test_no_descriptor_is_left_open_and_the_listing_can_be_given_up(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    listing: Iterator[Recording] = list_recordings(Archive(uri=str(root)))
    next(listing)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_object_of_which_the_store_lists_nonsense_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    for name in "abc":
        store.pipe_file(f"/nonsense/{name}.wav", b"sound")
    real = storage.describe

    def fail(filesystem: Any, path: str, info: Any = None) -> storage.ObjectState:
        return real(filesystem, path, {**info, "size": "CANARY"} if path.endswith("b.wav") else info)

    monkeypatch.setattr(storage, "describe", fail)
    found, _ = look("memory://nonsense")
    assert [None if one.error is None else one.error.reason for one in found] == [None, "entry_failed", None]
    assert "CANARY" not in str(found)


# -- after the listing -------------------------------------------------------------------------------------------------


def swap(root: Path, change: str) -> None:
    """Puts something else in the place of ward/b.wav, with its size and time where it has any."""
    before = (root / "ward/b.wav").stat()
    (root / "ward/b.wav").unlink()
    if change == "pipe":
        os.mkfifo(root / "ward/b.wav")
    elif change == "folder link":
        (root / "ward").rename(root.parent / "ward-before")
        (root / "ward").symlink_to("../elsewhere")
    else:
        (root / "ward/b.wav").symlink_to("/dev/zero" if change == "device" else root.parent / "elsewhere/b.wav")
    secret = root.parent / "elsewhere/b.wav"
    secret.write_bytes(b"another da"[: before.st_size])
    os.utime(secret, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", ["link", "folder link", "device", "pipe"])
def test_what_took_the_place_of_a_listed_file_is_not_read(root: Path, change: str) -> None:
    archive = Archive(uri=str(root), fetch_tries=1)
    found = {one.uri.rpartition("/")[2]: one for one in list_recordings(archive)}
    assert fetch(found["b.wav"], archive) == b"ward/b.wav"
    swap(root, change)
    with pytest.raises(ChangedDuringRead):
        fetch(found["b.wav"], archive)
    assert fetch(found["a.wav"], archive) == b"a.wav"


def test_names_that_look_alike_are_each_read(tmp_path: Path) -> None:
    names = [b"\x80.wav", rb"\udc80.wav", rb"\u005cudc80.wav"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    archive = Archive(uri=str(tmp_path))
    assert sorted(bytes(fetch(one, archive)) for one in list_recordings(archive)) == sorted(names)
