"""A manifest that somebody else wrote names places: only those of ``archive.allowed`` are asked for; a line costs itself."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dictalake.archive import manifest as module
from dictalake.archive import places, storage
from dictalake.archive.findings import Findings
from dictalake.archive.local_files import OutsideError
from dictalake.archive.manifest import find_recordings
from dictalake.archive.places import Allowed, open_listed, pin_places
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive
from dictalake.errors import ConfigError, NotAllowed
from dictalake.records import Recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    (root / "ward").mkdir(parents=True)
    (root / "ward/a.wav").write_bytes(b"sound")
    (tmp_path / "secret.wav").write_bytes(b"another ward")
    (tmp_path / "archive-old").mkdir()
    (tmp_path / "archive-old/b.wav").write_bytes(b"a folder that begins alike")
    (root / "out").symlink_to(tmp_path)
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whom somebody tried to reach. No line names 127.0.0.1, where servers of other tests are."""
    asked: list[Any] = []

    def refuse(_: object, address: Any) -> None:
        asked.extend([] if address[0] == "127.0.0.1" else [address])
        raise ConnectionRefusedError

    def look_up(host: Any, *_: Any, **__: Any) -> list[Any]:
        asked.extend([] if host == "127.0.0.1" else [host])
        raise socket.gaierror

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def read(folder: Path, *uris: str, **keys: Any) -> tuple[list[Recording], Findings]:
    pq.write_table(pa.table({"uri": ["ward/a.wav", *uris, "ward/a.wav"]}), folder / "list.parquet")
    findings = Findings()
    archive = Archive.model_validate({"manifest": str(folder / "list.parquet"), **keys})
    return list(find_recordings(archive, findings)), findings


OUTSIDE = [
    *("file:///etc/passwd", "/etc/passwd", "file:/etc/passwd", "FILE:///etc/passwd", "local:///etc/passwd"),
    *("file://localhost/etc/passwd", "../secret.wav", "ward/../../secret.wav", "./../secret.wav", "{0}/../secret.wav"),
    *("{0}-old/b.wav", "file://{0}/../secret.wav", "out/secret.wav", "out.wav", "~/.ssh/id_rsa", "/proc/self/environ"),
    *("http://169.254.169.254/computeMetadata/v1/", "https://metadata.google.internal/x", "HTTP://localhost:8080/x"),
    *("gs://other-bucket/a.wav", "s3://other-bucket/a.wav", "abfs://container/a.wav"),
]
NO_ARCHIVE = [
    *("zip://x.wav::file:///etc/x.zip", "simplecache::file:///etc/passwd", "data://,x", "generic://x", "sftp://host/x"),
    *("memory://x", "github://a:b@/x", "reference://x", "dir://x", "ssh://h/x", "jar://x", "webhdfs://h/x", "cached://x"),
    *("unknown://x", "tar://a::gs://b/c", "://x", "zip://", "generic://"),
]
NO_ASSET = ["embedded:../../../../etc/passwd", "embedded:/etc/passwd", "embedded:demo-archive/../../errors.py", "embedded:a\0b"]


@pytest.mark.parametrize("uri", OUTSIDE)
def test_a_place_outside_is_a_row_of_its_own_and_nobody_is_asked(
    folder: Path, uri: str, no_network: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = storage.describe_local
    monkeypatch.setattr(storage, "describe_local", lambda path: asked.append(path) or real(path))
    found, findings = read(folder, uri.format(folder))
    assert [one.error is None for one in found] == [True, False]
    assert isinstance(found[1].error, NotAllowed)
    assert found[1].error.detail == "row 2 of the manifest names a place that archive.allowed does not hold"
    assert (found[1].version, found[1].size_bytes, found[1].modified_at) == ("missing", 0, None)
    assert (findings.not_allowed, findings.allowed) == (1, 2)
    assert set(asked) == {f"{folder}/list.parquet", f"{folder}/ward/a.wav"}
    assert no_network == []


@pytest.mark.parametrize("uri", [*NO_ARCHIVE, *NO_ASSET])
def test_what_is_no_archive_is_a_bad_line(folder: Path, uri: str, no_network: list[Any]) -> None:
    found, _ = read(folder, uri)
    reasons = [None if one.error is None else one.error.reason for one in found]
    assert reasons in ([None, "bad_manifest_line"], [None, "not_allowed"])
    assert all(one.uri.startswith("file:///") for one in found)
    assert no_network == []


@pytest.mark.parametrize("location", [place for place in NO_ASSET if "\0" not in place])
def test_an_embedded_asset_is_inside_the_package(location: str) -> None:
    with pytest.raises(ConfigError, match="no such asset"):
        resolve(location)


def test_a_run_names_all_other_places_at_once_before_it_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module.logs, "log_event", lambda event, line, **_: lines.append(line))
    found, _ = read(folder, "gs://one/CANARY.wav", "gs://two/x", "/etc/CANARY", "https://user:pw@host:8443/CANARY")
    assert len(found) == 5
    (line,) = lines
    assert line == (
        "archive.manifest: 4 of its lines name places outside archive.allowed, in [/etc, gs://one/, gs://two/, "
        "https://host:8443/]; if you trust it, set archive.allowed to the places that it may name. These are only where they "
        "begin: name the narrowest folders, never / or /home; now they are failed rows (not_allowed)"
    )


def test_other_places_are_named_without_folders_files_users_and_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them may be named after a patient, also where all lines are about one."""
    lines: list[str] = []
    monkeypatch.setattr(module.logs, "log_event", lambda event, line, **_: lines.append(line))
    read(
        folder,
        *("https://one?token=CANARY", "https://u:CANARY@two#CANARY", "s3://CANARY@three/x", "https://[::1]:99/CANARY"),
        *(f"/usr/CANARY^HANS/2026/{ward}/deep/x.wav" for ward in "ab"),
        *("gs://four/CANARY/1.wav", "gs://four/CANARY/2.wav"),
        *("/Meier_CANARY.wav", "/CANARY/x.wav"),  # as who writes a path from the archive's root
        *("s3://CANARY/x.wav", "gs://meier_canary.wav", "https://meier canary/x.wav", "https://host:CANARY/x"),
        f"gs://{'b' * 60_000}/x",
        "abfs://c@acct.dfs.core.windows.net/x",
    )
    assert "CANARY" not in lines[0].upper()
    listed = lines[0].partition("[")[2].partition("]; ")[0].split(", ")
    assert listed == [
        *("/usr", "a folder that this machine does not have", "abfs://c@acct.dfs.core.windows.net/", "gs://four/", "gs://…"),
        *("https://[::1]:99/", "https://one/", "https://two/", "https://…", "s3://three/", "s3://…"),
    ]


def test_very_many_other_places_are_named_in_a_message_of_bounded_length(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module.logs, "log_event", lambda event, line, **_: lines.append(line))
    _, findings = read(folder, *(f"gs://bucket{number}/x" for number in range(200)))
    assert findings.not_allowed == 200
    assert len(findings.places) == 51
    assert lines[0].count("gs://") == 50
    assert "/, …]; if you trust it" in lines[0]
    read(folder, "/no-such-folder/x.wav")
    assert "1 of its lines names a place outside archive.allowed, in [a folder that this machine does not have];" in lines[1]


@pytest.mark.parametrize(
    "uri", ["a/" * 40_000 + "x.wav", "a/" * 2_100 + "x.wav", "gs://one/" + "a/" * 40_000, "/" + "../" * 40_000]
)
def test_a_place_longer_than_any_storage_holds_is_a_bad_line_at_once(folder: Path, uri: str) -> None:
    (folder / "a").symlink_to(".")
    begin = time.monotonic()
    found, _ = read(folder, *(f"{uri}{number}" for number in range(20)))
    assert time.monotonic() - begin < 2
    assert [None if one.error is None else one.error.reason for one in found] == [None, *["bad_manifest_line"] * 20]
    assert found[1].error is not None
    assert "longer than any storage can hold" in found[1].error.detail


def test_a_chain_of_links_costs_no_more_than_the_system_follows(folder: Path) -> None:
    for number in range(1_000):
        (folder / f"link{number}").symlink_to(f"link{number + 1}" if number < 999 else "ward/b.wav")
    (folder / "ward/b.wav").write_bytes(b"the end of the chain")
    begin = time.monotonic()
    found, _ = read(folder, "missing/../link0", "link1/x.wav", "link2", "link980")
    assert time.monotonic() - begin < 1
    assert [one.version == "missing" for one in found] == [False, True, True, True, False]
    assert found[4].uri == f"file://{folder}/ward/b.wav"


def test_a_manifest_of_other_places_alone_ends_the_run_unless_somebody_chose_that(folder: Path) -> None:
    (folder / "list.csv").write_text("uri\ngs://one/CANARY.wav\ns3://two/x.wav\n")
    with pytest.raises(ConfigError, match=r"in \[gs://one/, s3://two/\]; .* never / or /home$") as caught:
        list(find_recordings(Archive(manifest=str(folder / "list.csv"))))
    assert "CANARY" not in str(caught.value)
    rows = list(find_recordings(Archive(manifest=str(folder / "list.csv"), allowed=(str(folder),))))
    assert [type(row.error) for row in rows] == [NotAllowed, NotAllowed]


def test_an_allowed_place_may_be_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, top, *_ = str(tmp_path).split("/")
    monkeypatch.setattr(places, "_list_top_folders", lambda: frozenset({top}))
    allowed = [str(folder), f"file://{tmp_path}/secret.wav"]
    found, findings = read(folder, "../secret.wav", "out.wav", "../archive-old/b.wav", allowed=allowed)
    assert [one.uri for one in found] == [
        f"file://{folder}/ward/a.wav",
        *(f"file://{tmp_path}/{name}" for name in ("secret.wav", "archive-old/b.wav")),
    ]
    assert [one.error is None for one in found] == [True, True, False]
    assert findings.places == {f"/{top}"}


def test_links_out_of_the_folder_may_be_followed(folder: Path, tmp_path: Path) -> None:
    found, _ = read(folder, "out.wav", follow_links=True)
    assert [(one.uri, one.error) for one in found[1:]] == [(f"file://{tmp_path}/secret.wav", None)]


@pytest.mark.parametrize(
    ("prefix", "location", "is_allowed"),
    [
        ("gs://b/day", "gs://b/day/a.wav", True),
        ("gs://b/day/", "gcs://b/day/a.wav", True),
        ("gs://b/day", "gs://b/day-old/a.wav", False),
        ("gs://b", "gs://bb/a.wav", False),
        ("gs://b", "s3://b/a.wav", False),
        ("s3a://b/", "S3://b/a.wav", True),
        ("gs://b/day", "gs://b/day/../other/a.wav", False),
        ("gs://b/day", "gs://b/day/./a.wav", False),
        ("gs://b/day", "gs://b/day/%2e%2e/a.wav", True),  # a key that holds these characters
        ("gs://b", "gs://user@b/a.wav", False),
        ("abfs://c@acct.dfs.core.windows.net", "abfs://c@acct.dfs.core.windows.net/a.wav", True),
        ("abfss://c@acct.dfs.core.windows.net/day", "abfss://c@acct.dfs.core.windows.net/day/a.wav", True),
        ("abfs://c", "abfs://c@acct.dfs.core.windows.net/a.wav", False),
        ("abfs://c@acct.dfs.core.windows.net", "abfs://d@acct.dfs.core.windows.net/a.wav", False),
        ("abfs://c@acct.dfs.core.windows.net", "abfs://c@acct.dfs.core.windows.net@other/a.wav", False),
        ("https://host/day/", "https://HOST:443/day/a.wav", True),
        ("https://host/day/", "https://host/day//a.wav?v=1", True),
        ("https://host/day/", "https://host/day-old/a.wav", False),
        ("https://host/day/", "https://host/day/../a.wav", False),
        ("https://host/day/", "https://host/day/%2e%2e/a.wav", False),
        ("https://host/day/", "https://host/day/%252e%252e%252fa.wav", False),
        ("https://host/day/", "https://host/day/..%5ca.wav", False),
        ("https://host/day/", "https://host\\@other/day/a.wav", False),
        ("https://host/", "https://host@other/a.wav", False),
        ("https://host/", "https://user:pw@host/a.wav", False),
        ("https://host/", "https://host.other/a.wav", False),
        ("https://host/", "https://host:8443/a.wav", False),
        ("https://host/", "http://host/a.wav", False),
        ("https://host/", "https://[::1/a.wav", False),
        ("/data", "/data/a.wav", True),
        ("/data", "file:///data//./x/../a.wav", True),
        ("/data", "/data-old/a.wav", False),
        ("/data", "/data/../etc/passwd", False),
        ("/data/%2e%2e", "/data/%2e%2e/a.wav", True),
        ("/data", "/data/\0", False),
        ("/", "/etc/passwd", True),
    ],
)
def test_prefixes_are_compared_part_by_part_in_one_spelling(prefix: str, location: str, is_allowed: bool) -> None:
    assert Allowed(Archive(allowed=(prefix,)), "/").covers(location) is is_allowed


@pytest.mark.parametrize("prefix", ["https://", "gs://", "zip://x", "https://user@host/", "", " ", "https://host/../"])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"archive\.allowed"):
        Allowed(Archive(allowed=(prefix,)), "/")


def test_whatever_a_line_raises_costs_that_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.describe_local

    def fail(path: str) -> storage.ObjectState:
        if path.endswith("CANARY.wav"):
            raise KeyError("CANARY")
        return real(path)

    monkeypatch.setattr(module.storage, "describe_local", fail)
    found, _ = read(folder, "ward/CANARY.wav")
    assert [one.error is None for one in found] == [True, False]
    assert found[1].error is not None
    assert found[1].error.reason == "bad_manifest_line"
    assert found[1].error.detail.startswith("row 2 of the manifest cannot be understood (KeyError in ")
    assert "CANARY" not in found[1].error.detail + found[1].uri


def test_whatever_reading_a_line_raises_costs_that_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dictalake.archive import manifest_text

    real = manifest_text.make_row

    def fail(place: str, *arguments: Any) -> Any:
        if place == "line 3":
            raise RecursionError
        return real(place, *arguments)

    monkeypatch.setattr(manifest_text, "make_row", fail)
    (folder / "list.csv").write_text("uri,n\nward/a.wav,1\nward/a.wav,2\nward/b.wav,3\n")
    found = list(find_recordings(Archive(manifest=str(folder / "list.csv"))))
    assert [None if one.error is None else one.error.reason for one in found] == [None, "bad_manifest_line", None]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\xfd.wav",
        b"x" * 200_000 + b".wav",
        b'"' + b"y" * 200_000 + b'",1',
        b"\x00",
        b'"',
        b"a" * 5_000_000,
        b"\xed\xa0\x80",
    ],
    ids=lambda line: repr(line[:8]),
)
def test_bytes_of_a_line_cost_that_line(folder: Path, line: bytes) -> None:
    (folder / "list.csv").write_bytes(b"uri,n\nward/a.wav,1\n" + line + b"\nward/c.wav,3\n")
    found = list(find_recordings(Archive(manifest=str(folder / "list.csv"))))
    assert [found[0].uri, found[-1].uri] == [f"file://{folder}/ward/{name}.wav" for name in "ac"]
    assert len(found) == 3


def test_a_file_that_became_a_link_or_a_pipe_after_it_was_listed_is_not_read(folder: Path, tmp_path: Path) -> None:
    archive = Archive(uri=str(folder))
    with open_listed(f"{folder}/ward/a.wav", archive) as file:
        assert file.read() == b"sound"
    (folder / "ward/a.wav").unlink()
    (folder / "ward/a.wav").symlink_to(tmp_path / "secret.wav")
    for config in (archive, Archive(manifest=f"{folder}/list.csv"), Archive(manifest="/x.csv", allowed=(str(folder),))):
        with pytest.raises(OSError, match="leads out of the archive"):
            open_listed(f"{folder}/ward/a.wav", config)
    with open_listed(f"{folder}/ward/a.wav", Archive(uri=str(folder), follow_links=True)) as file:
        assert file.read() == b"another ward"
    (folder / "ward/a.wav").unlink()
    os.mkfifo(folder / "ward/a.wav")
    with pytest.raises(OSError, match="no regular file"):
        open_listed(f"{folder}/ward/a.wav", archive)


@pytest.mark.parametrize(
    "keys",
    [
        {"uri": "archive"},
        {"uri": "today"},
        {"manifest": "archive/l.csv"},
        {"manifest": "today/l.csv"},
        {"allowed": ("archive",)},
    ],
)
def test_a_worker_in_another_folder_reads_no_file_that_was_swapped_for_a_link(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    (tmp_path / "today").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    archive = pin_places(Archive.model_validate({"manifest": None if "uri" in keys else "/list.csv", **keys}))
    named = archive.manifest or archive.uri or ""
    assert named.startswith("file:///"), "a worker in another folder finds it, too"
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "today").unlink()
    (tmp_path / "today").symlink_to("elsewhere")
    path = f"{folder}/ward/a.wav"
    with open_listed(path, archive, is_listed=True) as file:
        assert file.read() == b"sound"
    with pytest.raises(OutsideError):
        open_listed(f"{tmp_path}/secret.wav", archive, is_listed=True)
    (folder / "ward").rename(tmp_path / "moved")
    (folder / "ward").symlink_to(tmp_path / "moved")
    with pytest.raises(OutsideError):
        open_listed(path, archive, is_listed=True)


def test_a_file_of_an_archive_that_was_reached_through_a_link_is_read_as_older_rows_name_it(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "today").symlink_to(folder)
    for path in (f"{tmp_path}/today/ward/a.wav", f"{tmp_path}//today/ward/a.wav", f"{folder}/ward/a.wav"):
        for uri in (f"{tmp_path}/today", str(folder)):
            with open_listed(path, Archive(uri=uri)) as file:
                assert file.read() == b"sound"
    (folder / "ward/a.wav").unlink()
    (folder / "ward/a.wav").symlink_to(tmp_path / "secret.wav")
    with pytest.raises(OSError, match="leads out of the archive"):
        open_listed(f"{tmp_path}/today/ward/a.wav", Archive(uri=f"{tmp_path}/today"))
