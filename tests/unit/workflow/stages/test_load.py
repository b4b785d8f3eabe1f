"""The load stage keeps what it has in hand bounded, whatever an archive holds, and stops for what all recordings would meet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.workflow import columns
from dictalake.workflow.stages import load
from dictalake.workflow.stages.load import DECODERS, Load, _map_ahead
from tests.archives_of_files import make_zip
from tests.unit.audio.formats.archive_samples import make_dicom, make_group


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), max_size=40))
def test_results_come_in_order_with_no_more_in_hand_than_allowed(sizes: list[int]) -> None:
    taken: list[int] = []  # sizes of items that were asked for and whose results have not come back
    lock, most = Lock(), 50

    def call(size: int) -> int:
        with lock:
            assert len(taken) <= 6
            assert sum(taken) <= most or len(taken) == 1
        return size

    def items() -> list[tuple[int, int]]:
        return [(size, size) for size in sizes]

    class Watched(ThreadPoolExecutor):
        def submit(self, function, size):  # type: ignore[no-untyped-def, override]
            with lock:
                taken.append(size)
            return super().submit(function, size)

    got = []
    with Watched(4) as pool:
        for size in _map_ahead(pool, call, items(), 6, most):
            with lock:
                taken.remove(size)
            got.append(size)
    assert got == sizes


def test_no_more_is_taken_while_what_came_is_more_than_was_announced() -> None:
    begun: list[int] = []

    def call(item: int) -> bytes:
        begun.append(item)
        return bytes(100)

    with ThreadPoolExecutor(1) as pool:

        def items() -> Iterator[tuple[int, int]]:
            for n in range(20):
                pool.submit(int).result()  # what was taken before has come
                yield n, 1

        for done, _ in enumerate(_map_ahead(pool, call, items(), 12, 250, len)):
            assert len(begun) - done <= 3


def test_archive_objects_do_not_wait_in_memory_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom = make_dicom(make_group(bytes(800), "UB", 800))
    for n in range(30):
        (tmp_path / f"{n:02}.zip").write_bytes(make_zip({"a.dcm": dicom}))
    (tmp_path / "plain.dcm").write_bytes(dicom)
    in_hand, most, lock = 0, 0, Lock()

    def count(change: int) -> None:
        nonlocal in_hand, most
        with lock:
            in_hand += change
            most = max(most, in_hand)

    class Counting(Load):
        def _fetch(self, recording):  # type: ignore[no-untyped-def]
            count(recording.uri.endswith(".zip"))
            return super()._fetch(recording)

        def _expand(self, archive, row, pool):  # type: ignore[no-untyped-def]
            yield from super()._expand(archive, row, pool)
            count(-1)

    config = Config.model_validate({"archive": {"uri": str(tmp_path)}, "quality": {"vad": "none"}})
    table = columns.recordings_to_table(list(list_recordings(config.archive)))
    rows = [row for loaded in Counting(config)(table) for row in loaded.to_pylist()]
    assert len(rows) == 31
    assert not [row["error"] for row in rows if row["error"]]
    assert most <= load._FETCHED_AHEAD + DECODERS + 3


def test_a_key_that_one_machine_lacks_stops_the_run_and_fails_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICTALAKE_PATIENT_KEY", "key of the hospital")
    dicom = make_dicom(make_group(bytes(800), "UB", 800))
    (tmp_path / "a.zip").write_bytes(make_zip({"a.dcm": dicom}))
    (tmp_path / "b.dcm").write_bytes(dicom)
    config = Config.model_validate({"archive": {"uri": str(tmp_path), "patient_fields": ["PatientID"]}})
    load, table = Load(config), columns.recordings_to_table(list(list_recordings(config.archive)))
    (loaded,) = load(table)
    assert len({dict(dicom)["patient_id_hash"] for dicom in loaded["dicom"].to_pylist()}) == 1
    monkeypatch.delenv("DICTALAKE_PATIENT_KEY")
    with pytest.raises(ConfigError, match="DICTALAKE_PATIENT_KEY"):
        list(load(table))


def test_a_bad_glob_for_members_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"^archive\.member_include = 'a\*\*/b'"):
        Load(Config.model_validate({"archive": {"member_include": "a**/b"}}))


class _Breaking(Load):
    """Fails outside any recording's guard at the second file of an archive object."""

    def _fetch_member(self, wanted):  # type: ignore[no-untyped-def]
        if wanted[1].uri.endswith("#b.dcm"):
            raise MemoryError
        return super()._fetch_member(wanted)


def test_an_archive_object_that_something_unforeseen_ends_does_not_count_as_done(tmp_path: Path) -> None:
    dicom = make_dicom(make_group(bytes(800), "UB", 800))
    (tmp_path / "a.zip").write_bytes(make_zip(dict.fromkeys(("a.dcm", "b.dcm", "c.dcm"), dicom)))
    config = Config.model_validate({"archive": {"uri": str(tmp_path)}})
    (recording,) = list_recordings(config.archive)
    (loaded,) = _Breaking(config)(columns.recordings_to_table([recording]))
    rows = {row["uri"].rsplit("/", 1)[1]: row for row in loaded.to_pylist()}
    assert "a.zip#c.dcm" not in rows
    assert rows["a.zip"]["error"]["reason"] == "internal_error"
    assert {row["archive_id"] for row in rows.values()} == {recording.recording_id}
    assert rows["a.zip"]["archive_rows"] == 4 > len(rows), "else the files without a row would never get one"
