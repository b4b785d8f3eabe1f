"""A run's model files, looked up and hashed once by the driver: what a worker opens later are those bytes, or it says so.

A worker on the driver's machine tells by the files' sizes and dates that they are the same, without a look for the model and
without reading them. On another machine, or where a file was touched, it reads and hashes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from dictalake.config.section import Section
from dictalake.config.sections import Acoustic, Decoding
from dictalake.errors import ConfigError

Stamps = tuple[tuple[str, int, int, int], ...]


class FrozenFiles(Section):
    """``path``, a file or a folder, is where the driver found the bytes whose hash is ``sha256``."""

    path: str
    sha256: str
    stamps: Stamps

    def is_unchanged(self) -> bool:
        """Whether the files at ``path`` are those that the driver hashed, by their sizes and dates."""
        return self.stamps == stamp_files(Path(self.path))

    def find(self, key: str, given: str, look_up: Callable[[], Path], hash_files: Callable[[Path], str]) -> Path:
        """Where the files are on this machine; ``look_up`` finds them by their name. Raises ConfigError for other bytes."""
        if self.is_unchanged():
            return Path(self.path)
        path = look_up()
        if not path.exists() or hash_files(path) != self.sha256:
            raise ConfigError(
                f"{key} = {given}: its files on this machine are not those that the run began with; they were changed while it "
                "ran, or this machine has others. Put the same files everywhere and run the same command again"
            )
        return path


class DecoderFiles(NamedTuple):
    """What a run found when it looked up the files of its decoder; None for a file that it has no use for.

    ``hotword_meaning`` is the sha256 of the hotwords whatever their order and the ends of their lines.
    """

    lm: FrozenFiles | None = None
    hotwords: FrozenFiles | None = None
    hotword_meaning: str | None = None


class FrozenAcoustic(Acoustic):
    """The section ``acoustic`` as a run sends it to its workers."""

    model_files: FrozenFiles = Field(exclude=True)


class FrozenDecoding(Decoding):
    """The section ``decoding`` as a run sends it to its workers."""

    lm_files: FrozenFiles | None = Field(None, exclude=True)
    hotword_files: FrozenFiles | None = Field(None, exclude=True)


def freeze_files(path: Path, hash_files: Callable[[Path], str]) -> FrozenFiles:
    """Looks up and hashes a file or folder.

    Sizes and dates come first: a file that changes while it is hashed, or later, no longer has those that are kept here.
    """
    stamps = stamp_files(path)
    return FrozenFiles(path=str(path), sha256=hash_files(path), stamps=stamps)


def stamp_files(path: Path) -> Stamps:
    """Name, size, date and inode of the file ``path``, or of each file in the folder; empty where there is none."""
    found: Iterable[Path] = sorted(path.iterdir()) if path.is_dir() else [path]
    status = [(file.name, file.stat()) for file in found if file.is_file()]
    return tuple((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in status)


def hash_one_file(path: Path) -> str:
    """sha256 of its bytes, as ``provenance.hash_file``."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
