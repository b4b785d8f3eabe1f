"""Reads the configuration: YAML, then the environment (``DICTALAKE_ACOUSTIC_DEVICE``), then ``--acoustic.device``.

The later source wins. An error is one line: it says where the value came from, and names the nearest key for an unknown one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import ValidationError

from dictalake.config.locations import shipped_configs
from dictalake.config.section import Section
from dictalake.config.sections import PATIENT_KEY, Config
from dictalake.errors import ConfigError

ENVIRONMENT_PREFIX = "DICTALAKE_"
# Which code an image holds (provenance reads it); the key of the patient hashes, which is for no file and no command line
_NO_KEYS = {"DICTALAKE_GIT_COMMIT", PATIENT_KEY}


@dataclass(frozen=True)
class Key:
    """One dotted key, for help texts and documentation."""

    name: str
    default: Any
    description: str
    allowed: str


@cache
def list_keys() -> tuple[Key, ...]:
    """Every key with its default, meaning and allowed values."""
    keys = []
    for section, info in Config.model_fields.items():
        assert isinstance(info.annotation, type)
        assert issubclass(info.annotation, Section)
        for name, field in info.annotation.model_fields.items():
            default = field.get_default(call_default_factory=True)
            keys.append(Key(f"{section}.{name}", default, field.description or "", _allowed(field.annotation)))
    return tuple(keys)


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Reads ``path`` (a YAML file, or the name of one in ``conf/``), the environment, then ``overrides`` (key, text).

    Raises ConfigError with one line: the key, what was given, what is allowed, and where it came from.
    """
    return load_with_origins(path, overrides, environment)[0]


def load_with_origins(
    path: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, str]]:
    """As ``load_config``, and the origin of each value that is not a default: key → file, variable or command line."""
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    if path is not None:
        _merge_file(find_config(path), values, origins)
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _NO_KEYS and "_" in name.removeprefix(ENVIRONMENT_PREFIX):
            dotted = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", ".", 1)
            _set(values, origins, dotted, _parse_text(dotted, text), f"the environment variable {name}")
    for dotted, text in overrides:
        _set(values, origins, dotted, _parse_text(dotted, text), "the command line")
    try:
        return Config.model_validate(values), origins
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def with_overrides(config: Config, path: str | Path) -> Config:
    """``config`` with the keys of a YAML file in place of its own. Raises ConfigError as ``load_config``."""
    values: dict[str, dict[str, Any]] = {name: dict(keys) for name, keys in config.model_dump(exclude_defaults=True).items()}
    origins: dict[str, str] = {}
    _merge_file(find_config(path), values, origins)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def find_config(path: str | Path) -> Path:
    """A file, or the name of a configuration that ships with dictalake (``demo``, ``medasr``)."""
    folder = shipped_configs()
    for candidate in (Path(path), folder / f"{path}.yaml", folder / Path(path).name):
        if candidate.is_file():
            return candidate
    shipped = sorted(file.stem for file in folder.glob("*.yaml"))
    raise ConfigError(f"--config {path}: no such file; configurations that ship with dictalake: {', '.join(shipped)}")


def _merge_file(path: Path, values: dict[str, dict[str, Any]], origins: dict[str, str]) -> None:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected sections ({', '.join(Config.model_fields)}), found {type(document).__name__}")
    for section, keys in document.items():
        if section not in Config.model_fields:
            refuse_unknown(str(section), str(path))
        if not isinstance(keys, dict):
            raise ConfigError(f"{section} in {path}: expected keys below it, found {keys!r}")
        for key, value in keys.items():
            _set(values, origins, f"{section}.{key}", value, str(path))


def _set(values: dict[str, dict[str, Any]], origins: dict[str, str], dotted: str, value: Any, origin: str) -> None:
    if dotted not in {key.name for key in list_keys()}:
        refuse_unknown(dotted, origin)
    section, key = dotted.split(".", 1)
    values.setdefault(section, {})[key] = value
    origins[dotted] = origin


def refuse_unknown(dotted: str, origin: str) -> NoReturn:
    """Raises a ConfigError that names the nearest existing key."""
    names = [key.name for key in list_keys()]
    close = difflib.get_close_matches(dotted, [*names, *Config.model_fields], n=1, cutoff=0.5)
    by_leaf = [name for name in names if name.split(".")[1] == dotted.split(".")[-1]]
    nearest = (by_leaf or close or [""])[0]
    hint = f"did you mean {nearest}?" if nearest else f"sections are {', '.join(Config.model_fields)}"
    raise ConfigError(f"unknown key {dotted} from {origin}: {hint}")


def _parse_text(dotted: str, text: str) -> Any:
    """Parses ``text`` as YAML, except for keys that hold text: a folder may be called ``2026`` or ``take #1``."""
    if any(key.name == dotted and key.allowed in ("text", "text or nothing") for key in list_keys()):
        return None if text in ("null", "~", "") else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines: list[str] = []
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        dotted = ".".join(parts[:2])
        origin = origins.get(dotted) or next((o for key, o in origins.items() if key.startswith(f"{dotted}.")), "the defaults")
        allowed = {key.name: key.allowed for key in list_keys()}.get(dotted, "")
        message = problem["msg"].removeprefix("Value error, ")
        given = f" = {_show_given(dotted, problem['input'])}" if len(parts) > 1 else ""
        line = f"{dotted}{given} from {origin}: {message[:1].lower()}{message[1:]}" + (
            f" (allowed: {allowed})" if allowed else ""
        )
        if line.split(":")[0] not in {seen.split(":")[0] for seen in lines}:
            lines.append(line)
    return "\n".join(lines)


def _show_given(dotted: str, value: Any) -> str:
    """A wrong value as an error may show it. Storage options, passwords and queries in URLs may be secrets."""
    if dotted.endswith(".storage_options"):
        return "(not shown: it may hold a secret)"
    if isinstance(value, str) and "://" in value:
        scheme, _, rest = value.partition("://")
        place, has_query, _ = rest.rpartition("@")[2].partition("?")
        return repr(f"{scheme}://{place}{'?…' if has_query else ''}")
    return repr(value)


def _allowed(annotation: Any) -> str:
    """A type in words: ``auto | float32 | bfloat16``, ``whole number or auto`` …"""
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        type(None): "nothing",
        datetime: "date and time",
    }
    if annotation in names:
        return names[annotation]
    if hasattr(annotation, "__metadata__"):  # PositiveInt: the message itself names the bound
        return _allowed(annotation.__origin__)
    arguments = get_args(annotation)
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return " | ".join(arguments)
    origin = getattr(annotation, "__origin__", None)
    if origin is tuple:
        return "list of texts" if arguments[0] is str else f"list of {_allowed(arguments[0])}"
    if origin is dict:
        return "keys and values"
    return " or ".join(_allowed(argument) for argument in arguments)
