"""The fingerprint names what can change the words, and nothing else."""

from __future__ import annotations

import importlib.util
import re
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.transcript.provenance import (
    Provenance,
    add_commit,
    git_commit,
    hash_file,
    library_versions,
    make_provenance,
    pipeline_version,
)


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm_6.kenlm"
    path.write_bytes(b"six grams")
    return path


def make(lm: Path | None, model_sha256: str = "0" * 64, run_id: str = "r1", **sections: dict[str, Any]) -> Provenance:
    values: dict[str, Any] = {"decoding": {"lm": None if lm is None else str(lm)}}
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    config = Config.model_validate(values)
    return make_provenance(config, run_id, model_id="m", model_revision=None, model_sha256=model_sha256, decoder="d")


@pytest.mark.parametrize(
    "sections",
    [
        {"acoustic": {"batch_s": 1.0}},
        {"acoustic": {"actors": 4, "device": "cpu", "gpus_per_actor": 0.5}},
        {"decoding": {"actors": 7}},
        {"decoding": {"engine": "pyctcdecode"}},
        {"decoding": {"nbest": 4}, "confidence": {"temperature": 2.0}},
        {"decoding": {"hotword_weight": 2.0, "hotword_guard": 1.0}},  # of no hotwords
        {"ray": {"block_rows": 3}, "lake": {"uri": "elsewhere"}, "archive": {"uri": "gs://other"}},
    ],
)
def test_speed_and_places_do_not_change_the_fingerprint(lm: Path, sections: dict[str, dict[str, Any]]) -> None:
    assert make(lm, run_id="r2", **sections).fingerprint == make(lm).fingerprint


@pytest.mark.parametrize(
    "sections",
    [
        {"acoustic": {"dtype": "float32"}},
        {"windows": {"length_s": 30.0}},
        {"windows": {"overlap_s": 4.0}},
        {"decoding": {"kind": "greedy"}},
        {"decoding": {"beam_width": 9}},
        {"decoding": {"lm": None}},
        {"decoding": {"lm_weight": 0.6}},
        {"decoding": {"word_score": 0.0}},
        {"decoding": {"token_min_logp": -6.0}},
        {"decoding": {"collapse_blank": 0.99}},
        {"decoding": {"known_pieces": False}},
    ],
)
def test_whatever_can_change_the_words_changes_the_fingerprint(lm: Path, sections: dict[str, dict[str, Any]]) -> None:
    changed, first = make(lm, **sections), make(lm)
    assert changed.fingerprint != first.fingerprint
    only = {"acoustic": "decoding_hash", "windows": "decoding_hash", "decoding": "acoustic_hash"}[next(iter(sections))]
    assert getattr(changed, only) == getattr(first, only)


def test_other_weights_change_it_too(lm: Path) -> None:
    assert make(lm, model_sha256="1" * 64).fingerprint != make(lm).fingerprint


def test_the_language_model_counts_by_its_bytes_not_by_its_name(lm: Path, tmp_path: Path) -> None:
    first = make(lm)
    assert first.lm_sha256 == sha256(b"six grams").hexdigest()
    (tmp_path / "copy.kenlm").write_bytes(b"six grams")
    assert make(tmp_path / "copy.kenlm").fingerprint == first.fingerprint
    lm.write_bytes(b"other grams")
    assert make(lm).fingerprint != first.fingerprint


def test_hotwords_count_by_their_bytes_and_weights(lm: Path, tmp_path: Path) -> None:
    def fingerprint(text: str, name: str = "a.txt", **keys: float) -> str:
        (tmp_path / name).write_text(text)
        return make(lm, decoding={"hotwords": str(tmp_path / name), **keys}).fingerprint

    first = fingerprint("apixaban\n")
    assert first == fingerprint("apixaban\n", "b.txt")
    others = [
        fingerprint("apixaban\t2\n"),
        fingerprint("apixaban\n", hotword_weight=2.0),
        fingerprint("apixaban\n", hotword_guard=1.0),
    ]
    assert len({first, make(lm).fingerprint, *others}) == 5


def test_an_engine_has_its_settings_in_the_fingerprint_and_nothing_of_the_decoder(tmp_path: Path) -> None:
    def of(engine: dict[str, Any], **sections: dict[str, Any]) -> Provenance:
        config = Config.model_validate({"acoustic": {"kind": "whisper"}, **sections})
        names = {"model_id": "m", "model_revision": None, "model_sha256": "0" * 64, "decoder": "d"}
        return make_provenance(config, "r1", **names, engine=engine, libraries={"ctranslate2": "4.8.5"})

    settings = {"language": "en", "beam_width": 5, "stretch_s": 600.0}
    first = of(settings)
    gone = str(tmp_path / "not there")
    assert first.fingerprint == of(settings, decoding={"beam_width": 99, "lm": gone}, windows={"length_s": 30}).fingerprint
    changed = [of(settings | change).fingerprint for change in ({"language": "de"}, {"beam_width": 1}, {"stretch_s": 60.0})]
    assert len({first.fingerprint, make(None).fingerprint, *changed}) == 5
    assert first.lm_sha256 is None
    assert first.versions["ctranslate2"] == "4.8.5"


def test_greedy_has_no_language_model_whatever_is_configured(tmp_path: Path) -> None:
    greedy = make(tmp_path / "not there", decoding={"kind": "greedy"})
    assert greedy.lm_sha256 is None
    assert greedy.fingerprint == make(None, decoding={"kind": "greedy", "lm_weight": 3.0, "beam_width": 100}).fingerprint


def test_a_language_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^decoding\.lm = .*gone\.kenlm: no such file; give a KenLM file \(ARPA, gzip or binary\), or null"
    ):
        make(tmp_path / "gone.kenlm")


def test_written_numbers_change_the_text_but_not_the_fingerprint(lm: Path) -> None:
    plain, numbers = make(lm), make(lm, formatting={"numbers": True})
    assert numbers.fingerprint == plain.fingerprint
    assert (plain.versions["formatter"], numbers.versions["formatter"]) == ("2", "2+numbers")
    assert numbers.formatting_hash != plain.formatting_hash


def test_hashes_are_twelve_digits_and_whole(lm: Path) -> None:
    provenance = make(lm)
    assert re.fullmatch("[0-9a-f]{12}", provenance.fingerprint)
    assert all(
        re.fullmatch("[0-9a-f]{64}", value)
        for value in (
            provenance.acoustic_hash,
            provenance.decoding_hash,
            provenance.formatting_hash,
            hash_file(str(lm), "decoding.lm"),
        )
    )


def test_calibration_of_confidence_is_named(lm: Path) -> None:
    calibrated = make(lm, confidence={"temperature": 2.5, "bias": -0.5})
    assert calibrated.versions["confidence"] == "temperature 2.5, bias -0.5, nbest_weight 0"


def test_versions_of_what_ran_are_named() -> None:
    versions = library_versions()
    assert {"python", "torch", "transformers", "ray", "pyarrow", "deltalake"} <= versions.keys()
    assert versions.keys() & {"ufal-kenlm", "kenlm"}, "either distribution has KenLM's module"
    assert ("pyctcdecode" in versions) == (importlib.util.find_spec("pyctcdecode") is not None)
    assert all(re.match(r"\d+\.", version) for version in versions.values())


def test_an_image_says_its_commit_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICTALAKE_GIT_COMMIT", "d25d97b")
    assert git_commit.__wrapped__() == "d25d97b"
    monkeypatch.delenv("DICTALAKE_GIT_COMMIT")
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", git_commit.__wrapped__() or "0" * 40)


@pytest.mark.parametrize(
    ("commit", "version"),
    [
        ("94e6b03a1f" + "0" * 30, "0.2.0+g94e6b03"),
        ("94e6b03a1f" + "0" * 30 + "-dirty", "0.2.0+g94e6b03.dirty"),
        ("d25d97b", "0.2.0+gd25d97b"),
        (None, "0.2.0"),
    ],
)
def test_a_version_names_release_and_commit(commit: str | None, version: str) -> None:
    assert add_commit("0.2.0", commit) == version
    assert str(Version(version)) == version


def test_the_version_in_provenance_is_that_of_this_code(lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.transcript.provenance.git_commit", lambda: "94e6b03a1f")
    assert pipeline_version.__wrapped__() == f"{metadata.version('dictalake')}+g94e6b03"
    assert make(lm).pipeline_version == pipeline_version()
