"""What a run says and where, without Ray."""

from __future__ import annotations

import pytest

from dictalake import logs, terminal
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.workflow import run


def warn_and_fail(*_: object) -> None:
    logs.log_event("slow_dtype", "the model will be slow", level=logs.WARNING)
    raise ConfigError("and that is all")


@pytest.mark.parametrize("has_file", [True, False])
def test_a_piped_night_shows_the_warnings_that_no_file_can_hold(
    has_file: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "_open_run", warn_and_fail)
    if not has_file:
        monkeypatch.setattr(terminal, "_open_file", lambda job: None)
    with pytest.raises(ConfigError, match="that is all"):
        run.transcribe(Config(), job="nightly")
    assert ("the model will be slow" in capfd.readouterr().err) == (not has_file)
