"""Nothing about a patient leaves the archive but for the lake: not in what a run prints, nor in any file that it or Ray leaves.

The word CANARY is in file names, DICOM tags, tags of sound files, the text of a file and a column of the manifest, and many
of the files are broken in the way that makes a library complain with the value in its message.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dictalake.config.sections import Lake
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.places import PLACES
from dictalake.records import list_subject_uris
from tests.audited_lake import list_leaks
from tests.commands import own_ray_folder, start
from tests.recordings import make_mu_law_dicom, make_sound, read_rows
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group

CANARY = "Zyxwandelina"
LONGEST_RUN_S = 240.0


def make_files() -> dict[str, bytes]:
    """Name → bytes; every name, and nearly every content, has the word in it."""
    sound = make_sound(1.0, seed=1)
    wav = encode(sound, 16_000, "WAV")
    info = b"INFOINAM" + struct.pack("<I", len(CANARY)) + CANARY.encode()
    tagged_wav = wav + b"LIST" + struct.pack("<I", len(info)) + info
    title = b"TIT2" + len(CANARY + " ").to_bytes(4, "big") + b"\x00\x00\x03" + CANARY.encode()
    mp3 = encode(sound, 16_000, "MP3")
    tagged_mp3 = b"ID3\x04\x00\x00" + bytes([0, 0, 0, len(title)]) + title + mp3
    patient = {
        "PatientName": f"{CANARY}^Mary",
        "PatientID": CANARY,
        "OtherPatientNames": f"{CANARY}^M",
        "InstitutionName": f"{CANARY} Hospital",
        "PatientComments": f"{CANARY} is afraid of needles",
    }
    dicom = make_mu_law_dicom(1.0, seed=2, **patient)
    word = CANARY.encode()
    return {
        f"{CANARY} tagged.wav": tagged_wav,
        f"{CANARY} tagged.mp3": tagged_mp3,
        f"{CANARY} cut.mp3": tagged_mp3[: len(tagged_mp3) - len(mp3) + 300],
        f"{CANARY} garbled.flac": encode(sound, 16_000, "FLAC")[:200] + word * 400,
        f"{CANARY} cut.wav": wav[:20] + word,
        f"{CANARY} letter.wav": f"Dear {CANARY},\nthe wrist is not broken.\n".encode() * 20,
        f"{CANARY} empty.wav": b"",
        f"{CANARY} good.dcm": dicom,
        f"{CANARY} cut.dcm": dicom[: len(dicom) * 2 // 3],
        f"{CANARY} norate.dcm": make_dicom(group_at(None), **patient),
        # The wrong kind of value: letters where numbers, dates, UIDs or a VR belong.
        f"{CANARY} frequency.dcm": swap(make_dicom(group_at("8000.0000000"), **patient), b"8000.0000000", word),
        f"{CANARY} vr.dcm": swap(dicom, b"PN", b"??"),
        f"{CANARY} uid.dcm": make_mu_law_dicom(1.0, seed=2, StudyInstanceUID=CANARY, **patient),
        f"{CANARY}.zip": pack({f"{CANARY}/{CANARY}.wav": tagged_wav, f"{CANARY}.txt": word, f"{CANARY}.dcm": dicom[:700]}),
        f"{CANARY} cut.zip": pack({f"{CANARY}.wav": tagged_wav})[:-9],
        f"{CANARY} cut.wav.gz": gzip.compress(tagged_wav)[:-99],
        f"{CANARY} date.dcm": make_mu_law_dicom(1.0, seed=2, **patient, **dates()),
    }


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def group_at(rate: str | None) -> Dataset:
    return make_group(encode(make_sound(1.0, 3, 8_000), 8_000, "RAW", "ULAW"), "MB", 8_000, SamplingFrequency=rate)


def dates() -> dict[str, str]:
    return {
        "ContentDate": CANARY,
        "PatientBirthDate": CANARY,
        "PatientAge": CANARY,
        "ContentTime": CANARY,
        "PatientWeight": "1",
    }


def swap(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says what is wrong with the values written here
def test_the_word_is_nowhere_but_in_the_lake(random_lasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_files()
    archive = tmp_path / "archive" / CANARY
    archive.mkdir(parents=True)
    for name, data in files.items():
        (archive / name).write_bytes(data)
    lines = ["uri,reference,patient", *(f'"{CANARY}/{name}","{CANARY} is well",{CANARY}' for name in files)]
    lines.append(f"{CANARY}/{CANARY} was never here.wav,,{CANARY}")
    (tmp_path / "archive/manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    options = {
        "archive.patient_fields": "[PatientID, PatientName, PatientBirthDate]",
        "archive.manifest": str(tmp_path / "archive/manifest.csv"),
        "lake.uri": str(tmp_path / "lake"),
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
        "ray.cpus": "2",
    }
    output, temporary = tmp_path / "output.txt", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tests.commands.KEPT", ("DICTALAKE_PATIENT_KEY",))
    monkeypatch.setenv("DICTALAKE_PATIENT_KEY", f"{CANARY}-a-key-of-many-letters")  # the key is as secret
    with own_ray_folder() as ray_folder:
        run = start(["backfill", *(f"--{key}={value}" for key, value in options.items())], ray_folder, output, temporary)
        status = run.wait(LONGEST_RUN_S)
        told = {path.relative_to(root): text for root in (ray_folder, temporary) for path, text in read_files(root)}
    printed = output.read_bytes()

    # The run was what it should be: all files came through it, many failed, and Ray left its logs.
    assert status == 3, printed.decode()
    rows = read_rows(tmp_path / "lake")
    assert len(rows) == len(files) + 1 + 3  # of the archive object three files instead of itself; of the cut one both
    assert sum(CANARY in row["source"]["uri"] and dict(row["metadata"])["patient"] == CANARY for row in rows) == len(rows)
    assert {"corrupt_audio", "not_audio", "empty_object", "not_found"} <= {
        row["error"]["reason"] for row in rows if row["error"]
    }
    assert b"not_found (load)" in printed
    assert sum("logs" in path.parts for path in told) > 5

    assert not leaks(printed), "in what the run printed"
    assert [str(path) for path, text in told.items() if leaks(text) or leaks(str(path).encode())] == []
    hashes = {row["dicom"]["patient_id_hash"] for row in rows if row["dicom"]}
    assert len(hashes - {None}) == 1, "one patient under one key"
    for row in rows:
        said = [row[column] for column in ("text", "text_raw", "error", "dicom", "provenance", "run_id")]
        assert not leaks(repr(said).encode())
    require_erasure(Lake.model_validate({"uri": str(tmp_path / "lake")}), rows)


def require_erasure(lake: Lake, rows: list[dict[str, Any]]) -> None:
    """What the run wrote is where the table of places says, and an erasure of all objects leaves none of it."""
    holding = {path.partition("/")[0] for path in list_leaks(lake, words=(CANARY,))}
    assert {"transcripts", "manifests"} <= holding <= {place.folder for place in PLACES if place.personal == "content"}
    assert {path.name for path in Path(str(lake.uri)).iterdir()} <= {place.folder for place in PLACES}
    objects = {list_subject_uris(row["source"]["uri"], row["source"]["version"], row["archive_id"])[-1] for row in rows}
    receipt = forget(lake, Subjects(uris=tuple(objects)))
    assert (receipt.recordings, receipt.unknown) == (len(rows), 0)
    assert list_leaks(lake, words=(CANARY,)) == []


def leaks(text: bytes) -> bool:
    """The word in any case, cut or whole, also in two-byte characters."""
    return re.search(b"zyxwand|z\x00y\x00x\x00w\x00a\x00n\x00d", text.lower()) is not None


def read_files(root: Path) -> Iterator[tuple[Path, bytes]]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()
