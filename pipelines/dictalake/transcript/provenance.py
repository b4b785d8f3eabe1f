"""What made a transcript: three hashes, the versions of the libraries, the release and commit of the code.

``fingerprint`` identifies everything that can change the words. It is a hash of the acoustic part (weights, dtype, windows)
and of the decoding part (language model, decoder parameters). Settings that change only the speed (batch size, number of
actors) are not in it. An engine that gives text has no windows and no decoding part; its settings are in its acoustic part.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from dictalake.config.locations import PACKAGE, resolve
from dictalake.config.sections import Confidence, Config
from dictalake.errors import ConfigError
from dictalake.transcript.formatting import formatter_version

# What 0.1.0 hashed. These keys are always in the hash.
HASHED = {
    "windows": ("length_s", "overlap_s"),
    "decoding": (
        *("beam_width", "lm_weight", "word_score", "known_pieces", "beam_prune_logp", "token_min_logp", "collapse_blank"),
    ),
    "acoustic": ("kind", "dtype"),
}
# Keys that came later, each with the value that is as if it did not exist. A key at that value is left out of the hash, so that
# older fingerprints stay. The value is the one with which the key was introduced; it never changes with a default.
HASHED_SINCE: dict[str, dict[str, Any]] = {"windows": {}, "decoding": {}, "acoustic": {}}
# Keys that change the speed only, that are hashed by the content of what they name, or that an engine's own settings hold.
NOT_HASHED = {
    "windows": (),
    "decoding": ("kind", "actors", "lm", "lm_sha256", "engine", "nbest", "hotwords", "hotword_weight", "hotword_guard"),
    "acoustic": (
        *("model", "revision", "device", "actors", "gpus_per_actor", "cpus_per_actor", "batch_s", "compile"),
        *("language", "beam_width", "stretch_s"),
    ),
}
# What these are without a language model, where they change nothing: the defaults of 0.1.0.
_WITHOUT_LM = {"lm_weight": 0.5, "word_score": 1.5, "known_pieces": True}
_COMMIT_DIGITS = 7
_LIBRARIES = (
    *("torch", "transformers", "ray", "pyarrow", "deltalake", "librosa", "soundfile", "pydicom"),
    *("ufal-kenlm", "kenlm", "pyctcdecode"),  # KenLM comes from either distribution; pyctcdecode is not for every Python
)


@dataclass(frozen=True)
class Provenance:
    """The provenance that all rows of a run share.

    ``parts`` is what the fingerprint stands for. ``named`` is the fingerprint of these parts, which a lake may know under an
    older name. ``spelling`` is the one that 0.1.0 gave to the same request, by the very bytes of its files and by keys without
    effect. Mostly all three are the same.
    """

    run_id: str
    fingerprint: str
    acoustic_hash: str
    decoding_hash: str
    formatting_hash: str
    pipeline_version: str
    git_commit: str | None
    model_id: str
    model_revision: str | None
    model_sha256: str
    lm_sha256: str | None
    decoder: str
    versions: dict[str, str]
    parts: Mapping[str, Any] = field(default_factory=dict)
    named: str = ""
    spelling: str = ""


def make_provenance(
    config: Config,
    run_id: str,
    *,
    model_id: str,
    model_revision: str | None,
    model_sha256: str,
    decoder: str,
    engine: Mapping[str, Any] | None = None,
    libraries: Mapping[str, str] | None = None,
    file_hashes: Mapping[str, str] | None = None,
    meaning_hashes: Mapping[str, str] | None = None,
) -> Provenance:
    """Hashes ``config`` and the files that it names. Raises ConfigError if the language model does not exist.

    ``file_hashes`` has the hashes of those files that were hashed before, by their keys (``decoding.lm``). ``meaning_hashes``
    has those of files that say the same in another layout or order, where they differ (``acoustic.model``).

    For an engine that gives text, ``engine`` has its settings and ``libraries`` the versions of its libraries.
    """
    hashes, meanings = dict(file_hashes or {}), dict(meaning_hashes or {})

    def describe(model: str, known: Mapping[str, str], *, as_spelled: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        acoustic = {
            "kind": config.acoustic.kind,
            "model_sha256": model,
            "dtype": config.acoustic.dtype,
            "channels": "each",
            **_take_later_keys(config, "acoustic"),
        }
        acoustic |= {"windows": _take_keys(config, "windows")} if engine is None else dict(engine)
        decoding = _describe_decoding(config, known, as_spelled=as_spelled) if engine is None else {"kind": "none"}
        return acoustic, decoding

    acoustic, decoding = describe(meanings.get("acoustic.model", model_sha256), {**hashes, **meanings}, as_spelled=False)
    spelled = describe(model_sha256, hashes, as_spelled=True)
    formatting = {"version": formatter_version(config.formatting.numbers)}
    formatting |= {"text2num": metadata.version("text2num")} if config.formatting.numbers else {}
    return Provenance(
        run_id=run_id,
        fingerprint=_name(acoustic, decoding),
        acoustic_hash=_hash(acoustic),
        decoding_hash=_hash(decoding),
        formatting_hash=_hash(formatting),
        pipeline_version=pipeline_version(),
        git_commit=git_commit(),
        model_id=model_id,
        model_revision=model_revision,
        model_sha256=model_sha256,
        lm_sha256=decoding.get("lm_sha256"),
        decoder=decoder,
        parts={"model": model_id, "acoustic": acoustic, "decoding": decoding},
        named=_name(acoustic, decoding),
        spelling=_name(*spelled),
        versions=library_versions()
        | dict(libraries or {})
        | {"confidence": _describe(config.confidence), "formatter": formatting["version"]},
    )


def _name(acoustic: Mapping[str, Any], decoding: Mapping[str, Any]) -> str:
    return _hash({"acoustic": acoustic, "decoding": decoding})[:12]


def _take_keys(config: Config, section: str) -> dict[str, Any]:
    """The hashed keys of a section."""
    values = getattr(config, section)
    return {key: getattr(values, key) for key in HASHED[section]} | _take_later_keys(config, section)


def _take_later_keys(config: Config, section: str) -> dict[str, Any]:
    values = getattr(config, section)
    return {key: getattr(values, key) for key, frozen in HASHED_SINCE[section].items() if getattr(values, key) != frozen}


def _describe_decoding(config: Config, file_hashes: Mapping[str, str], *, as_spelled: bool) -> dict[str, Any]:
    """``as_spelled`` keeps keys that have no effect, as 0.1.0 did."""

    def find_hash(location: str, key: str) -> str:
        return file_hashes.get(key) or hash_file(location, key)

    search = config.decoding
    decoding: dict[str, Any] = {"kind": search.kind}
    if search.kind == "beam":
        decoding |= _take_keys(config, "decoding")
        if not search.lm and not as_spelled:
            decoding |= _WITHOUT_LM
        decoding |= {"lm_sha256": find_hash(search.lm, "decoding.lm") if search.lm else None}
        if search.hotwords is not None:
            decoding |= {name: getattr(search, name) for name in ("hotword_weight", "hotword_guard")}
            decoding |= {"hotwords_sha256": find_hash(search.hotwords, "decoding.hotwords")}
    return decoding


def hash_file(location: str, key: str) -> str:
    """sha256 of the local file or embedded asset that the configuration key ``key`` names. Raises ConfigError."""
    path = Path(resolve(location))
    if not path.is_file():
        what = "a KenLM file (ARPA, gzip or binary)" if key == "decoding.lm" else "a text file"
        raise ConfigError(f"{key} = {location}: no such file; give {what}, or null for none")
    digest = sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    except OSError as error:
        raise ConfigError(f"{key} = {location}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Python's version, and those of the main libraries that are installed."""
    return {"python": platform.python_version()} | installed_versions(_LIBRARIES)


@cache
def installed_versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """The versions of those that are installed. Each is looked for in all of the environment, so it is done once."""
    found = {}
    for name in libraries:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _describe(calibration: Confidence) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in calibration.model_dump().items())


@cache
def pipeline_version() -> str:
    """The release, and the commit where it is known: ``0.2.0+g94e6b03``, with ``.dirty`` if the code differs from it."""
    try:
        release = metadata.version("dictalake")
    except metadata.PackageNotFoundError:
        release = "0"
    return add_commit(release, git_commit())


def add_commit(release: str, commit: str | None) -> str:
    """A version in the form that Python's packaging knows, with the commit as its local part."""
    if commit is None:
        return release
    name, dirty, _ = commit.partition("-dirty")
    return f"{release}+g{name[:_COMMIT_DIGITS]}{'.dirty' if dirty else ''}"


@cache
def git_commit() -> str | None:
    """The commit of a checkout, with ``-dirty`` if its code differs; in an image ``DICTALAKE_GIT_COMMIT``; else None."""
    if commit := os.environ.get("DICTALAKE_GIT_COMMIT"):
        return commit
    root = Path(__file__).parents[3]
    # A copy of the package inside another project must not get that project's commit.
    if root / "pipelines" / "dictalake" != PACKAGE or not (root / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return None
    code = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", "pipelines"]
    changed = subprocess.run(code, capture_output=True, text=True, check=False).stdout.strip()
    return found.stdout.strip() + ("-dirty" if changed else "")


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
