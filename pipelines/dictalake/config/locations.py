"""What ships inside the package: embedded models and recordings, and the configurations of ``conf/``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dictalake.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
ASSETS = PACKAGE / "assets"
EMBEDDED = "embedded:"


def shipped_configs() -> Path:
    """The folder of the shipped configurations: inside an installed package, at the root of a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "conf"


def resolve(location: str) -> str:
    """``embedded:NAME`` → the path of that asset; anything else unchanged."""
    if not location.startswith(EMBEDDED):
        return location
    name = PurePosixPath(location.removeprefix(EMBEDDED))
    path = ASSETS / name
    if name.is_absolute() or ".." in name.parts or "\0" in str(name) or not path.exists():
        raise ConfigError(f"{location}: no such asset; there are: {', '.join(sorted(p.name for p in ASSETS.iterdir()))}")
    return str(path)
