"""Lines for operators: for people on the terminal, or with ``logs.format: json`` one JSON object a line on stderr.

    {"time": "2026-03-01T01:30:12.5+00:00", "level": "INFO", "event": "progress", "job": "nightly", "run_id": "…", "message":
     "640 of 900 recordings done, …", "done": 640, "wanted": 900, "failed": 2, "failures": {"not_audio (load)": 2}, …}

They hold numbers, run ids and reasons; never a transcript's text or the name of an object. Libraries may quote one, so only the
logger, the level and the place of their lines are repeated.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from rich.console import Console

from dictalake import terminal
from dictalake.errors import ConfigError, name_place

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
Show = Callable[[str], object]

_LOGGER = logging.getLogger("dictalake")
_CONTEXT: dict[str, Any] = {}  # of the process: one job, and mostly one run


def set_up(job: str, kind: str = "text", file: str | None = None) -> None:
    """From here on lines are of ``kind`` (``logs.format``: text or json), and appended to ``file`` (``logs.file``) too.

    Raises ConfigError where ``logs.file`` cannot be written.
    """
    _CONTEXT.clear()
    _CONTEXT["job"] = job
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    for old in list(_LOGGER.handlers):
        _LOGGER.removeHandler(old)
        old.close()
    as_json = JsonFormatter(
        "%(levelname)s %(message)s",
        rename_fields={"levelname": "level"},
        timestamp="time",
        reserved_attrs=[*RESERVED_ATTRS, "is_shown"],
    )
    if kind == "json":
        _LOGGER.addHandler(_OnStderr())
    if file is not None:
        try:
            _LOGGER.addHandler(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"logs.file = {file}: cannot be written ({type(error).__name__})") from None
    as_text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    for handler in _LOGGER.handlers:
        handler.setFormatter(as_json if kind == "json" else as_text)
    if kind == "json":
        sys.excepthook = _log_defect
        take_over_libraries()


def take_over_libraries() -> None:
    """In JSON, turns what libraries log into lines of ours. Again after ``ray.init``, which installs its own handlers."""
    if not is_json():
        return
    logging.captureWarnings(True)
    for logger in (logging.getLogger(), logging.getLogger("ray")):
        logger.handlers = [_OfLibraries(logging.WARNING)]
    logging.getLogger("ray").propagate = False


def is_json() -> bool:
    return any(isinstance(handler, _OnStderr) for handler in _LOGGER.handlers)


def log_event(event: str, line: str, show: Show | None = None, level: int = INFO, **fields: Any) -> None:
    """One line: people see it by ``show``, else by ``console_handler``; JSON and ``logs.file`` get its ``fields`` too."""
    if show is not None and not is_json():
        show(terminal.printable(line, "\n"))
    if _LOGGER.handlers:
        _LOGGER.log(level, line, extra={"event": event, "is_shown": show is not None, **_CONTEXT, **fields})


def log_run_start(run_id: str, fingerprint: str, model: str, confinement: str) -> None:
    """Says which model transcribes, and what confines the decoders. Every line from here on names the run."""
    _CONTEXT.update(run_id=run_id)
    message = f"transcribing with {model} (run {run_id}), {confinement}"
    log_event("run_started", message, fingerprint=fingerprint, model=model, confinement=confinement)


@contextmanager
def console_handler(console: Console | None) -> Iterator[OnConsole]:
    """Shows lines on ``console`` while the block lasts. With None they go to the file that libraries write to."""
    handler = OnConsole(console)
    level = _LOGGER.level
    if level == logging.NOTSET:  # used as a library, without ``set_up``
        _LOGGER.setLevel(logging.INFO)
    _LOGGER.addHandler(handler)
    try:
        yield handler
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


def shown_on(console: Console) -> Show:
    """Prints a line unwrapped, whatever its length and whatever characters it holds."""

    def show(line: str) -> None:
        console.print(terminal.printable(line, "\n"), highlight=False, soft_wrap=True, markup=False)

    return show


class _OnStderr(logging.StreamHandler):
    """Writes to what the terminal is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = terminal.stderr()
        super().emit(record)


class OnConsole(logging.Handler):
    """For people, unless the lines are JSON. ``hidden_warnings`` counts those that no console showed."""

    def __init__(self, console: Console | None) -> None:
        super().__init__()
        self._console, self.hidden_warnings = console, 0

    def emit(self, record: logging.LogRecord) -> None:
        if is_json() or getattr(record, "is_shown", False):
            return
        if self._console is not None:
            shown_on(self._console)(record.getMessage())
            return
        self.hidden_warnings += record.levelno >= WARNING
        if (log := terminal.library_log()) is not None:
            log.write(f"dictalake: {record.levelname} {record.getMessage()}")


class _OfLibraries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        place = f"{record.module}:{record.lineno}"
        line = f"{record.name} at {place}"
        log_event("library", line, _show_nowhere, record.levelno, logger=record.name, place=place)


def _show_nowhere(line: str) -> None:
    """For lines that JSON alone holds."""


def _log_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    place = name_place(error) if trace is not None else kind.__name__
    log_event("crashed", f"a defect of dictalake: {place}", None, ERROR, error=kind.__name__, place=place)
