"""What lies in a local archive may be a link, a pipe or a device, and may become one at any moment: only files are opened."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from dictalake.archive import local_files
from dictalake.archive.local_files import NotRegularError, OutsideError, open_folder, open_regular

SECRET = b"another folder's dictation"


@pytest.fixture(params=["openat2", "part by part"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with each kind of entry, on a kernel with openat2 and on one without."""
    if request.param == "part by part":
        monkeypatch.setattr(local_files, "has_openat2", lambda: False)
    elif not local_files.has_openat2():
        pytest.skip("this kernel has no openat2")
    (tmp_path / "secret.wav").write_bytes(SECRET)
    root = tmp_path / "archive"
    (root / "ward").mkdir(parents=True)
    (root / "ward/a.wav").write_bytes(b"sound")
    for name, target in {
        "inside": "ward/a.wav",
        "absolute-inside": str(root / "ward/a.wav"),
        "folder-inside": "ward",
        "outside": "../secret.wav",
        "absolute-outside": "/etc/passwd",
        "folder-outside": "..",
        "device": "/dev/zero",
        "process": "/proc/self/environ",
        "executable": "/proc/self/exe",
        "itself": "itself",
        "one": "other",
        "other": "one",
        "nowhere": "ward/gone.wav",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    before = Path.cwd()
    os.chdir(root)  # the name of a socket may have 107 characters
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    os.chdir(before)
    (tmp_path / "linked-root").symlink_to(root)
    return str(root)


@pytest.mark.parametrize("name", ["ward/a.wav", "inside", "absolute-inside", "folder-inside/a.wav"])
def test_a_file_and_a_link_that_stays_inside_are_opened(archive: str, name: str) -> None:
    for root in (archive, f"{archive}/", f"{archive}/../linked-root"):
        with open_regular(root, name) as file:
            assert file.read() == b"sound"


@pytest.mark.parametrize(
    "name",
    [
        *("outside", "absolute-outside", "folder-outside/secret.wav", "../secret.wav", "ward/../../secret.wav"),
        *("/etc/passwd", "device", "process", "executable"),
    ],
)
def test_nothing_outside_is_opened(archive: str, name: str) -> None:
    with pytest.raises(OutsideError):
        open_regular(archive, name)


@pytest.mark.parametrize("name", ["pipe", "socket"])
def test_a_pipe_and_a_socket_are_refused_at_once(archive: str, name: str) -> None:
    with pytest.raises(NotRegularError):
        open_regular(archive, name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("itself", errno.ELOOP), ("one", errno.ELOOP), ("nowhere", errno.ENOENT), ("ward", errno.EISDIR)),
        *(("ward/a.wav/b", errno.ENOTDIR), ("n" * 300, errno.ENAMETOOLONG)),
    ],
)
def test_another_entry_that_is_no_file_has_the_error_of_the_system(archive: str, name: str, code: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        open_regular(archive, name)
    assert caught.value.errno == code


def test_a_part_of_the_path_that_becomes_a_link_meanwhile_is_not_followed(
    archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without openat2 links are resolved before, and then there may be none any more."""
    monkeypatch.setattr(local_files, "has_openat2", lambda: False)
    resolve = local_files._resolve

    def swap_then(name: str, target: str) -> None:
        def resolve_and_swap(root: str, relative: str) -> str:
            resolved = resolve(root, relative)
            Path(root, name).rename(Path(root, f"{name}-before"))
            Path(root, name).symlink_to(target)
            return resolved

        monkeypatch.setattr(local_files, "_resolve", resolve_and_swap)

    (Path(archive).parent / "a.wav").write_bytes(SECRET)
    swap_then("ward/a.wav", "../../secret.wav")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(archive, "ward/a.wav")
    swap_then("ward", "..")
    with pytest.raises(NotADirectoryError):
        open_regular(archive, "ward/a.wav-before")


def test_no_descriptor_is_left_open(archive: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in ("ward/a.wav", "ward", "pipe", "outside", "nowhere", "itself", "ward/a.wav/b"):
        with suppress(OSError):
            open_regular(archive, name).close()
    os.close(open_folder(archive, "ward"))
    os.close(open_folder(archive, ""))
    assert len(os.listdir("/proc/self/fd")) == before
