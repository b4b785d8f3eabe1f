"""Who starts a command hears which terms of decoding.hotwords the model cannot write; the fingerprint is that of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake import logs
from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.doctor_checks import WARN, CheckFailed, check_decoder
from dictalake.config.load import load_config
from dictalake.config.sections import Config
from dictalake.workflow.identity import identify, open_output_spec


def configure(folder: Path, *terms: str) -> Config:
    path = folder / "terms.txt"
    path.write_text("\n".join(terms), encoding="utf-8")
    return load_config("demo", [("decoding.hotwords", str(path))], environment={})


def test_a_run_warns_once_and_its_fingerprint_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logs, "log_event", lambda event, line, *rest, **fields: lines.append(line))
    fingerprints = []
    for terms in (["apixaban"], ["apixaban", "HER2"], ["apixaban", "HER2", "β-Blocker"]):
        config = configure(tmp_path, *terms)
        checkpoint = find_checkpoint(config.acoustic)
        assert open_output_spec(config, checkpoint) is not None
        fingerprints.append(identify(config, checkpoint).fingerprint)
    assert [line for line in lines if "hotwords" in line] == [
        "decoding.hotwords: 1 of 3 terms is left out, as the model has no pieces for some of their letters or they have fewer "
        "than 2 (line 3); write them as they are spoken"
    ]
    assert len(set(fingerprints)) == 3


def test_doctor_warns_of_them(tmp_path: Path) -> None:
    assert "left out" not in check_decoder(configure(tmp_path, "apixaban"))
    with pytest.raises(CheckFailed, match="1 of 2 terms is left out") as caught:
        check_decoder(configure(tmp_path, "apixaban", "β-Blocker"))
    assert caught.value.state == WARN
