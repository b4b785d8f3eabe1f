"""Whether the file of a language model is the one that it should be, before KenLM loads it.

KenLM checks the kind of a binary file and that it is long enough. It loads a file whose tables are damaged without a word, and
the transcripts get worse. A hash finds any damage; without one, only damage to the header or to the list of words at the end
is found.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from pathlib import Path

from dictalake.config.sections import Decoding
from dictalake.errors import ConfigError

EMBEDDED = {"embedded:medasr-mini/lm_6.kenlm": "1b380bc98249896629e91e881669922ac0f2445814d657767bb40795ba613a0a"}
# lm/binary_format.cc: this text in 56 bytes, 32 bytes that tell the machine's number formats; order, multiplier, kind of model,
# whether words follow, version of the search; then a count for each order.
_MAGIC = b"mmap lm http://kheafield.com/code format version"
_PARAMETERS, _COUNTS = struct.Struct("<BxxxfIBxxxI"), 0x6C
_PARAMETERS_AT = 0x58
_MOST_ORDERS, _KINDS, _HASHED_KINDS = 6, 6, 2
_FIRST_WORD = b"<unk>\0"
_TAIL_BYTES_A_WORD = 256


def find_known_hash(config: Decoding) -> str | None:
    """The sha256 that the language model must have: the one of the configuration, or of a model that ships with dictalake."""
    return config.lm_sha256 or EMBEDDED.get(config.lm or "")


def find_hub_hash(path: Path) -> str | None:
    """The sha256 by which Hugging Face's cache names a large file; None for other files."""
    target = path.resolve()
    return target.name if target.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", target.name) else None


def require_hash(location: str, found: str, wanted: str | None) -> None:
    """Raises ConfigError where a hash is known and it is another one."""
    if wanted is not None and found != wanted:
        raise ConfigError(
            f"decoding.lm = {location}: the file is damaged or another one: its sha256 is {found[:12]}…, and {wanted[:12]}… "
            "was expected; fetch or copy it again, or correct decoding.lm_sha256"
        )


def check_lm_file(config: Decoding, path: Path) -> None:
    """Raises ConfigError for a file with another hash than the known one, or a KenLM binary file that is not whole."""
    assert config.lm is not None
    if (wanted := find_known_hash(config)) is not None:
        with path.open("rb") as stream:
            require_hash(config.lm, hashlib.file_digest(stream, "sha256").hexdigest(), wanted)
    if (problem := _find_damage(path)) is not None:
        raise ConfigError(f"decoding.lm = {config.lm}: the file is damaged ({problem}); fetch or copy it again")


def _find_damage(path: Path) -> str | None:
    """What is wrong with a KenLM binary file; None where nothing is, or where it is of another kind."""
    with path.open("rb") as stream:
        head = stream.read(_COUNTS + 8 * _MOST_ORDERS)
        if not head.startswith(_MAGIC):
            return None
        if len(head) < _COUNTS + 8 * _MOST_ORDERS:
            return "it ends in its header"
        order, multiplier, kind, has_words, _ = _PARAMETERS.unpack_from(head, _PARAMETERS_AT)
        # KenLM computes the sizes of hash tables with the multiplier: one that is no number ends the process.
        has_sizes = kind >= _HASHED_KINDS or math.isfinite(multiplier)
        if not 2 <= order <= _MOST_ORDERS or kind >= _KINDS or has_words > 1 or not has_sizes:
            return "its header makes no sense"
        if not has_words:
            return None
        (words,) = struct.unpack_from("<Q", head, _COUNTS)
        size = stream.seek(0, 2)
        if words * 8 > size:
            return "its header makes no sense"
        stream.seek(max(0, size - _TAIL_BYTES_A_WORD * words - len(_FIRST_WORD)))
        tail = stream.read()
    start = tail.rfind(_FIRST_WORD)
    if start < 0 or not tail.endswith(b"\0") or tail.count(b"\0", start) - words not in (0, 1):  # <unk> may not be counted
        return f"the list of its {words} words at the end is not whole"
    return None
