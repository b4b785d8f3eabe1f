"""Manifests as spreadsheets and scripts write them are read, and one bad line of them is one failed recording."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake import logs
from dictalake.archive import manifest_text
from dictalake.archive.load_recording import load_recording
from dictalake.archive.manifest import find_recordings, read_manifest
from dictalake.archive.manifest_rows import BadRow, ManifestRow, Notes
from dictalake.archive.manifest_text import read_text
from dictalake.audio.load import AudioLoader
from dictalake.config.sections import Archive, Config
from dictalake.errors import BadManifestLine, ConfigError
from dictalake.lake.table import DONE
from dictalake.lake.tombstones import ErasedSubjects, hash_subject
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.worklist import CLAIMED, WorkList

WARNED = "dictalake"


def read(folder: Path, content: str | bytes, name: str = "list.csv") -> list[Recording]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_manifest(Archive(manifest=str(folder / name))))


def names(found: list[Recording]) -> list[str]:
    """The file that each recording names, or what is wrong with its line."""
    return [r.uri.rsplit("/", 1)[1] if r.error is None else r.error.detail for r in found]


def metadata(found: list[Recording]) -> list[dict[str, str]]:
    return [dict(r.metadata) for r in found if r.error is None]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logs, "log_event", lambda event, line, **fields: lines.append(line))
    return lines


def parse(data: bytes) -> list[ManifestRow | BadRow]:
    lines = read_text(io.BufferedReader(io.BytesIO(data)), Notes())  # type: ignore[arg-type]
    return [row for line in lines if (row := line.parse()) is not None]


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "uri,note\na.wav,one\nb.wav,two\n",
        "uri;note\na.wav;one\nb.wav;two\n",
        "uri\tnote\na.wav\tone\nb.wav\ttwo\n",
        "sep=;\r\nuri;note\r\na.wav;one\r\nb.wav;two\r\n",
        '"sep=|"\nuri|note\na.wav|one\nb.wav|two',
        "\ufeffURI;note\r\na.wav;one\r\nb.wav;two\r\n",
        "\n\n Uri ;note;;\na.wav;one;;\nb.wav;two;;;;\n;;;\n\n;\n\x1a",
        "note,\xa0uri\xa0\none,a.wav\ntwo, b.wav \n",
        "URI\tnote\r\na.wav\tone\r\nb.wav\ttwo\r\n".encode("utf-16"),
        "\ufeffURI\tnote\r\na.wav\tone\r\nb.wav\ttwo\r\n".encode("utf-16-be"),
        "uri,note\na.wav,one\nb.wav,two\n".encode("utf-16-le"),
        "uri,note\na.wav,one\nb.wav,two\n".encode("utf-16-be"),
        '{"uri": "a.wav", "note": "one"}\n\n{"Uri": "b.wav", "note": "two", "site": null}\n',
        '\ufeff{"uri": "a.wav", "note": "one"}\r\n{"uri": "b.wav", "note": "two"}',
    ],
    ids=lambda content: repr(content)[:30],
)
def test_the_same_list_is_read_in_every_form(tmp_path: Path, content: str | bytes) -> None:
    found = read(tmp_path, content)
    assert names(found) == ["a.wav", "b.wav"]
    assert metadata(found) == [{"note": "one"}, {"note": "two"}]


def test_a_field_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    found = read(tmp_path, f'uri,note\na.wav,"{"x" * 300_000}"\nb.wav,{"y" * 300_000}\n')
    assert [len(one["note"]) for one in metadata(found)] == [300_000, 300_000]


def test_other_columns_in_windows_1252_are_read_with_one_warning(tmp_path: Path, warnings: list[str]) -> None:
    content = "uri;Bemerkung für Ärzte\na.wav;Übelkeit – 5 €\nb.wav;ok\nc.wav;Ödem\n".encode("cp1252")
    assert metadata(read(tmp_path, content)) == [{"Bemerkung für Ärzte": text} for text in ("Übelkeit – 5 €", "ok", "Ödem")]
    assert len(warnings) == 1
    assert "2 lines are not UTF-8 in other columns than `uri` (first: line 2)" in warnings[0]


def test_columns_without_a_name_and_with_the_same_name_keep_their_values(tmp_path: Path) -> None:
    found = read(tmp_path, "uri,note,,note,note_2,\na.wav,1,2,3,4,\n")
    assert metadata(found) == [{"note": "1", "column_3": "2", "note_2": "3", "note_2_2": "4"}]


def test_a_line_with_too_few_fields_has_no_value_for_the_others(tmp_path: Path) -> None:
    assert metadata(read(tmp_path, "uri,note,site\na.wav\nb.wav,x\n")) == [{}, {"note": "x"}]


def test_values_of_json_lines_become_text(tmp_path: Path) -> None:
    line = {"uri": "a.wav", "n": 3, "ok": True, "words": ["ü"], "none": None, "empty": "", "speaker": {"id": 7}}
    (found,) = read(tmp_path, json.dumps(line))
    assert found.metadata == {"n": "3", "ok": "True", "words": '["ü"]', "speaker": '{"id": 7}'}


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_the_uris_of_parquet_may_be_of_every_type_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array(["a.wav", None, "ü.wav", None], pa.string())
    values = plain.cast(kind) if not pa.types.is_dictionary(kind) else plain.dictionary_encode().cast(kind)
    table = pa.table({"note": pa.array(["x", "y", None, None]), " URI ": values})
    pq.write_table(table, tmp_path / "list.parquet")
    found = list(read_manifest(Archive(manifest=str(tmp_path / "list.parquet"))))
    assert names(found) == ["a.wav", "row 2 of the manifest has no uri", "ü.wav"]  # row 4 is empty
    assert metadata(found) == [{"note": "x"}, {}]


def test_columns_of_bytes_in_parquet_are_left_out_with_one_warning(tmp_path: Path, warnings: list[str]) -> None:
    audio = pa.array([{"bytes": b"\xff\xfe", "path": "x"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    columns_ = {"flac": pa.array([b"\xff"]), "uri": ["a.wav"], "audio": audio, "n": [1], "nothing": [float("nan")]}
    pq.write_table(pa.table(columns_), tmp_path / "list.parquet")
    found = list(read_manifest(Archive(manifest=str(tmp_path / "list.parquet"))))
    assert (names(found), metadata(found)) == (["a.wav"], [{"n": "1"}])
    assert len(warnings) == 1
    assert "columns 1 and 3 hold bytes, not text, and are left out" in warnings[0]


def test_columns_of_parquet_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    values = [pa.array([b"\xff"]), pa.array(["a.wav"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(values, names=["n", "uri", "n", "n"]), tmp_path / "list.parquet")
    assert metadata(list(read_manifest(Archive(manifest=str(tmp_path / "list.parquet"))))) == [{"n_2": "x", "n_3": "y"}]


def test_a_bad_value_in_parquet_costs_no_other_row(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\5\0\0\0\6\0\0\0\7\0\0\0"), pa.py_buffer(b"a.wav\xfcb"))
    times = pa.array([1, 10**15, 2], pa.timestamp("ms"))
    pq.write_table(pa.table({"uri": broken, "when": times}), tmp_path / "list.parquet")
    first, bad, last = read_manifest(Archive(manifest=str(tmp_path / "list.parquet")))
    assert names([first, bad, last])[::2] == ["a.wav", "b"]
    assert bad.error is not None
    assert bad.error.detail.startswith("row 2 of the manifest has a uri that is not UTF-8")
    assert first.metadata["when"] == "1970-01-01 00:00:00.001000"


def test_a_column_of_uris_that_is_no_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [1, 2]}), tmp_path / "list.parquet")
    with pytest.raises(ConfigError, match="its column `uri` holds int64; it must hold text"):
        read_manifest(Archive(manifest=str(tmp_path / "list.parquet")))


# -- bad lines ---------------------------------------------------------------------------------------------------------

BAD_LINES = {
    b"b.wav,1,CANARY": "has 3 fields, the first line names 2; put fields with a separator in quotes",
    b",CANARY": "has no uri",
    b'b.wav,"CANARY': "has a quote that is not closed, or not doubled inside of a quoted field",
    b'b.wav,"CANARY"x': "has a quote that is not closed, or not doubled inside of a quoted field",
    b"CANARY-\xfc.wav,1": "has a uri that is not UTF-8; save the file as CSV in UTF-8, or as Parquet",
    b"CANARY.wav\0,1": "holds a NUL byte",
    b"\0" * 300: "holds a NUL byte",
    b"embedded:CANARY,1": "names an embedded asset that does not exist",
    b"zip://CANARY::file:///x.zip,1": "names a kind of storage that holds no archive",
}


@pytest.mark.parametrize(("line", "problem"), BAD_LINES.items(), ids=lambda value: repr(value)[:30])
def test_a_bad_line_is_one_failed_recording_between_good_ones(tmp_path: Path, line: bytes, problem: str) -> None:
    content = b'uri,note\na.wav,"x, y"\n' + line + b'\nc.wav,"say ""ah"""\nd.wav,\n'
    first, bad, *others = read(tmp_path, content)
    assert names([first, *others]) == ["a.wav", "c.wav", "d.wav"]
    assert isinstance(bad.error, BadManifestLine)
    assert (bad.error.detail, bad.error.recording_id) == (f"line 3 of the manifest {problem}", bad.recording_id)
    assert "CANARY" not in f"{bad.error.detail}{bad.uri}{bad.metadata}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"uri": "CANARY', "is not JSON, or names a field twice"),
        ('{"uri": "CANARY", "uri": "b.wav"}', "is not JSON, or names a field twice"),
        ("[" * 100_000, "is not JSON, or names a field twice"),
        ('["CANARY"]', "is JSON, but not an object"),
        ('{"note": "CANARY"}', "has no uri"),
        ('{"uri": 7}', "has a uri that is not text"),
        ('{"uri": "CANARY", "URI": "b.wav"}', "has more than one uri"),
        ('{"uri": "\\ud800.wav"}', "has a uri that is not UTF-8; save the file as CSV in UTF-8, or as Parquet"),
        ('{"uri": "a.wav", "note": "\\u0000"}', "holds a NUL byte"),
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("place", [1, 2])
def test_a_bad_line_of_json_is_one_failed_recording(tmp_path: Path, line: str, problem: str, place: int) -> None:
    lines = ['{"uri": "a.wav"}', '{"uri": "b.wav", "note": "\\ud800"}']
    if line.startswith(('{"note', "[")) or "URI" in line:
        place = 2  # in the first line they say something of the whole file
    lines.insert(place - 1, line)
    found = read(tmp_path, "\n".join(lines))
    bad = found.pop(place - 1)
    assert names(found) == ["a.wav", "b.wav"]
    assert bad.error is not None
    assert bad.error.detail == f"line {place} of the manifest {problem}"


@pytest.mark.parametrize(
    "later",
    ['b.wav,disc 12",7', 'b.wav,",x",7', 'b.wav,"",7', '"b.wav",x,7', 'b.wav,"x",7', "b.wav,x,7"],
)
def test_a_quote_that_is_not_closed_hides_no_line_after_it(tmp_path: Path, later: str) -> None:
    found = read(tmp_path, f'uri,note,n\na.wav,"open,1\n{later}\nc.wav,x,7\n')
    assert found[0].error is not None
    assert [r.uri.rsplit("/", 1)[1] for r in found[1:]] == ["b.wav", "c.wav"]


def test_of_files_without_an_extension_too_many_fields_tell_that_a_quote_is_open(tmp_path: Path) -> None:
    found = read(tmp_path, 'uri,note\na,"open\nb,disc 12",x\nc,x\n')
    assert [r.error is None for r in found] == [False, False, True]
    assert names(found)[1].startswith("line 3 of the manifest has 3 fields")


def test_a_field_over_several_lines_is_one_value(tmp_path: Path) -> None:
    found = read(tmp_path, 'note,uri\n"first,\nsee b.wav\n\nlast",a.wav\nx,b.wav\n')
    assert metadata(found) == [{"note": "first,\nsee b.wav\n\nlast"}, {"note": "x"}]


def test_a_line_without_end_is_one_bad_line_and_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_text, "_MOST_CHARACTERS", 1000)
    long = "x" * 5000
    content = f'uri,note\na.wav,{long}\nb.wav,1\nc.wav,"{"x" * 990}\n{long}"\n'
    found = names(read(tmp_path, content))
    assert found[1] == "b.wav"
    assert found[0].startswith("line 2 of the manifest is longer than ")
    assert found[2].startswith("line 4 of the manifest ")
    assert found[3].startswith("line 5 of the manifest is longer than ")


def test_ids_of_bad_lines_are_stable_and_their_own(tmp_path: Path) -> None:
    bad = ",CANARY\na.wav,1,2\n,CANARY\n"
    before = read(tmp_path, f"uri,n\n{bad}")
    assert [r.recording_id for r in read(tmp_path, f"uri,n\n{bad}b.wav,1\n")[:3]] == [r.recording_id for r in before]
    ids = Counter(r.recording_id for r in before)
    assert len(ids) == 3
    ids.update(r.recording_id for r in read(tmp_path, f"uri,n\n{bad}", "other.csv"))
    corrected = read(tmp_path, "uri,n\nb.wav,CANARY\na.wav,2\n,CANARY!\n")
    ids.update(r.recording_id for r in corrected)
    assert len(ids) == 9
    assert {r.version for r in before} == {"bad_manifest_line"}


def test_bad_lines_are_kept_by_since_and_counted_once(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,n\n,1\n,2\n")
    archive = Archive(manifest=str(tmp_path / "list.csv"), since=datetime(2100, 1, 1))
    assert len(list(find_recordings(archive))) == 2


def test_reading_one_recording_gives_its_error(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, "uri,n\n,1\n")
    config = Config.model_validate({})
    assert [(one, error) for one, error in load_recording(bad, config, AudioLoader(config))] == [(bad, bad.error)]


def test_erasing_the_manifest_or_the_bad_line_keeps_it_out(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, "uri,n\n,1\n")
    for uri in (bad.uri, f"file://{tmp_path}/list.csv"):
        assert ErasedSubjects(frozenset([hash_subject("uri", uri)])).covers_recording(bad.uri, bad.version)


def test_the_work_list_and_its_blocks_carry_the_error(tmp_path: Path) -> None:
    found = read(tmp_path, "uri,n\na.wav,1\n,2\n")
    work = WorkList(found, ErasedSubjects(), Config.model_validate({}), _folder(tmp_path / "work"))
    work.refresh(lambda: ds.dataset(DONE.empty_table()), lambda: ds.dataset(CLAIMED.empty_table()))
    (block,) = work.blocks()
    errors = {r["recording_id"]: r["error"] for r in columns.recordings_to_table(block).to_pylist()}
    assert errors == {
        found[0].recording_id: None,
        found[1].recording_id: {
            "stage": "load",
            "reason": "bad_manifest_line",
            "detail": "line 3 of the manifest has no uri",
            "retryable": False,
        },
    }


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


# -- laws --------------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from('ab ,;\t|"\nü€.'), max_size=12)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=20),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\r\n", "\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_program_writes_as_csv_is_read_back(
    rows: list[tuple[str, str]], separator: str, end: str, encoding: str, quoting: Any
) -> None:
    rows = [(note.replace("\n", end), site.replace("\n", end)) for note, site in rows]  # csv quotes no other line ends
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([("note", "URI", "site"), *((note, f"{n}.wav", site) for n, (note, site) in enumerate(rows))])
    found = [row for row in parse(file.getvalue().encode(encoding)) if isinstance(row, ManifestRow)]
    assert [(row.uri, row.metadata.get("note", ""), row.metadata.get("site", "")) for row in found] == [
        (f"{n}.wav", note, site) for n, (note, site) in enumerate(rows)
    ]


GOOD = st.sampled_from(
    ["{}.wav,x", "{}.wav,", "{}.wav", '{}.wav,"x, y"', '"{}.wav","say ""ah"""', '{}.wav,disc 12"', '{}.wav,",x"']
)
BAD = st.sampled_from(['{}.wav,"open', '{}.wav,"a"b', "{}.wav,x,y", ",x{}", "{}.wav,x\0", '"{}.wav,x', '{}.wav,""a'])


@given(st.lists(st.one_of(GOOD.map(lambda line: (True, line)), BAD.map(lambda line: (False, line))), max_size=30))
def test_each_line_with_content_is_one_row_whatever_is_wrong_with_others(lines: list[tuple[bool, str]]) -> None:
    content = "uri,note\n" + "".join(f"{line.format(n)}\n" for n, (_, line) in enumerate(lines))
    found = parse(content.encode())
    assert [row.place for row in found] == [f"line {n}" for n in range(2, len(lines) + 2)]
    uris = [row.uri if isinstance(row, ManifestRow) else None for row in found]
    assert uris == [f"{n}.wav" if is_good else None for n, (is_good, _) in enumerate(lines)]


@given(st.binary(max_size=400))
def test_no_bytes_end_the_reading_once_the_header_is_there(data: bytes) -> None:
    assert all(isinstance(row, ManifestRow | BadRow) for row in parse(b"uri,note\n" + data))
    assert all(isinstance(row, ManifestRow | BadRow) for row in parse(b'{"uri": "a"}\n' + data))
