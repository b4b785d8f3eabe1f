"""The files and folders that a person names, and the lake that goes with them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dictalake.config.locations import EMBEDDED
from dictalake.errors import ConfigError

DEFAULT_LAKE = "dictalake-lake"


@dataclass(frozen=True)
class Place:
    """``given`` is what the person typed; ``location`` is absolute, or a URI."""

    given: str
    location: str
    is_folder: bool

    @property
    def is_local(self) -> bool:
        return "://" not in self.location and not self.location.startswith(EMBEDDED)


def find_place(given: str) -> Place:
    """Raises ConfigError where there is nothing to transcribe."""
    if given.startswith("file://"):
        return replace(find_place(given.removeprefix("file://")), given=given)
    if "://" in given or given.startswith(EMBEDDED):
        return Place(given, given, is_folder=True)
    path = os.path.abspath(os.path.expanduser(given))
    if os.path.isdir(path):
        if not any(files for _, _, files in os.walk(path, followlinks=True)):
            raise ConfigError(f"{given}: the folder holds no files")
        return Place(given, path, is_folder=True)
    if not os.path.isfile(path):
        raise ConfigError(f"{given}: there is no such file or folder")
    return Place(given, path, is_folder=False)


def find_common_folder(places: Sequence[Place]) -> str | None:
    """The innermost folder or URI that holds all the recordings of ``places``; None where they lie in several stores."""
    if all(place.is_local for place in places):
        return os.path.commonpath([p.location if p.is_folder else os.path.dirname(p.location) for p in places])
    levels = zip(*(place.location.rstrip("/").split("/") for place in places), strict=False)
    shared = [names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, levels)]
    store_parts = 3 if "://" in places[0].location else 1  # gs: // bucket
    return "/".join(shared) if len(shared) >= store_parts else None


def choose_lake(given: str | None, places: Sequence[Place], here: Path | None = None) -> str:
    """``given``, or a folder below the current one, where a person looks for what a command made.

    A lake inside a folder of recordings would be listed as recordings by the next run. So such a lake is refused where it was
    asked for; the default then goes beside the folder of recordings. Raises ConfigError.
    """
    folders = [Path(place.location) for place in places if place.is_local and place.is_folder]
    if given is not None:
        path = Path(os.path.abspath(os.path.expanduser(given)))
        if "://" not in given and (inside := _find_around(path, folders)):
            raise ConfigError(f"the lake {given} is inside {inside}, which is transcribed; give --lake a folder elsewhere")
        return given
    path = (here or Path.cwd()) / DEFAULT_LAKE
    while inside := _find_around(path, folders):
        if inside.parent == inside:
            raise ConfigError(f"{inside} holds everything, so there is no place beside it for the lake; name a smaller folder")
        path = inside.parent / DEFAULT_LAKE
    relative = os.path.relpath(path, here)
    return relative if relative.startswith("..") else f"./{relative}"


def _find_around(path: Path, folders: Sequence[Path]) -> Path | None:
    real = Path(os.path.realpath(path))
    return next((f for f in folders if path.is_relative_to(f) or real.is_relative_to(os.path.realpath(f))), None)
