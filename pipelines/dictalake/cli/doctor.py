"""Checks what a run needs on this machine, with the configuration that the run will have, and says what to fix."""

from __future__ import annotations

from collections.abc import Iterator

from dictalake.cli.doctor_checks import CHECKS, FAIL, OK, CheckFailed, CheckResult
from dictalake.config.sections import Config
from dictalake.errors import DictalakeError, name_place


def examine(config: Config) -> Iterator[CheckResult]:
    """Runs every check of CHECKS. A failure says what to do in its own words where it has some, else in those of the check."""
    for name, (check, todo) in CHECKS.items():
        try:
            yield CheckResult(name, OK, check(config))
        except CheckFailed as failure:
            yield CheckResult(name, failure.state, failure.what, failure.todo)
        except DictalakeError as error:
            yield CheckResult(name, FAIL, str(error), todo)
        except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
            message = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
            yield CheckResult(name, FAIL, f"{type(error).__name__}: {message}", todo)
        except Exception as error:  # a damaged file can make a library raise anything; the other checks still run
            yield CheckResult(name, FAIL, name_place(error), todo)
