"""What a job tells its operators: lines for people, or with ``logs.format: json`` one JSON object a line on stderr.

    {"time": "2026-03-01T01:30:12.5+00:00", "level": "INFO", "event": "progress", "job": "nightly", "run_id": "…", "message":
     "640 of 900 done, …", "done": 640, "wanted": 900, "failed": 2, "failures": {"not_audio (load)": 2}, "audio_hours": 41.2, …}

Numbers, run ids, reasons; never a transcript's text or the name of an object. What libraries log may quote one, so of that only
the logger, the level and the place are told.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console

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
    as_json = JsonFormatter("%(levelname)s %(message)s", rename_fields={"levelname": "level"}, timestamp="time")
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
        sys.excepthook = _tell_defect
        take_over()


def take_over() -> None:
    """In json, what libraries log comes as lines of ours. Again after ``ray.init``, which puts its own handlers in place."""
    if not is_json():
        return
    logging.captureWarnings(True)
    for logger in (logging.getLogger(), logging.getLogger("ray")):
        logger.handlers = [_OfLibraries(logging.WARNING)]
    logging.getLogger("ray").propagate = False


def is_json() -> bool:
    return any(isinstance(handler, _OnStderr) for handler in _LOGGER.handlers)


def begin(run_id: str, fingerprint: str) -> None:
    """Every line from here on names the run."""
    _CONTEXT.update(run_id=run_id)
    tell("run_started", f"run {run_id} under fingerprint {fingerprint}", fingerprint=fingerprint)


def tell(event: str, line: str, show: Show | None = None, level: int = INFO, **fields: Any) -> None:
    """One line: ``show`` shows it to people, JSON and ``logs.file`` get it with its ``fields``."""
    if show is not None and not is_json():
        show(line)
    if _LOGGER.handlers:
        _LOGGER.log(level, line, extra={"event": event, **_CONTEXT, **fields})


def shown_on(console: Console) -> Show:
    """Prints a line as it is, however long."""
    return partial(console.print, highlight=False, soft_wrap=True)


class _OnStderr(logging.StreamHandler):
    """Writes to what ``sys.stderr`` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _OfLibraries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        place = f"{record.module}:{record.lineno}"
        tell("library", f"{record.name} at {place}", None, record.levelno, logger=record.name, place=place)


def _tell_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    place = name_place(error) if trace is not None else kind.__name__
    tell("crashed", f"a defect of dictalake: {place}", None, ERROR, error=kind.__name__, place=place)
