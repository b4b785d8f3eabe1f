"""N-gram arrays on disk: built once for the bytes of an ARPA file, then mapped by all processes of a machine.

They lie in the user's cache folder, under the hash of the file that they were made from. The pages are shared, so eight
workers take the memory of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from filelock import FileLock

from dictalake.decoding.native.ngram_arrays import NgramModel, build_ngrams
from dictalake.decoding.native.tables import CONTEXT, NGRAM, read_only

_FORMAT = 1  # one more whenever the arrays of a file change


def open_ngrams(path: Path) -> NgramModel:
    """The arrays of the ARPA file ``path``: mapped from the cache, after building them if nobody has yet.

    Without a cache folder that this user may write to, they are built in memory. Raises as ``build_ngrams``.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder() / f"{digest}-{_FORMAT}"
    if (found := _map(folder)) is not None:
        return found
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"), mode=0o600)
        lock.acquire()
    except OSError:
        return _freeze(build_ngrams(path))
    with lock:
        # Another process may have built them while this one waited.
        if (found := _map(folder)) is not None:
            return found
        built = build_ngrams(path)
        try:
            _write(built, folder)
        except OSError:  # the disk is full
            return _freeze(built)
    return _map(folder) or _freeze(built)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/dictalake/ngrams``, else below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dictalake" / "ngrams"


def _write(model: NgramModel, folder: Path) -> None:
    """Appears whole or not at all; only this user may read it."""
    beside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        np.save(beside / "ngrams.npy", model.ngrams)
        np.save(beside / "contexts.npy", model.contexts)
        (beside / "words.json").write_text(json.dumps(model.words), encoding="utf-8")
        for file in beside.iterdir():
            file.chmod(0o600)
        if folder.exists():  # damaged, or _map had found it
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _map(folder: Path) -> NgramModel | None:
    """None where there are no arrays, or not those of one model."""
    try:
        # Plain arrays over the maps: numba knows no memmap.
        ngrams, contexts = (np.asarray(np.load(folder / name, mmap_mode="r")) for name in ("ngrams.npy", "contexts.npy"))
        words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if ngrams.dtype != NGRAM or contexts.dtype != CONTEXT or len(contexts) < 2 or len(words) >= len(ngrams):
        return None
    return NgramModel(ngrams, contexts, words) if int(contexts["first"][-1]) == len(ngrams) else None


def _freeze(model: NgramModel) -> NgramModel:
    return NgramModel(read_only(model.ngrams), read_only(model.contexts), model.words)
