"""Headerless sound: bytes that do not say what they are. The name's ending and the user's word have to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from dictalake.config.section import Section

Coding = Literal["mu_law", "a_law", "g722", "gsm", "vox", "pcm_s16le", "pcm_s16be", "pcm_s8", "pcm_u8"]
G722_RATE_HZ = 16_000


# The codec of an entry → as ``source.codec`` of a row has it
STORED_CODECS: dict[str, str] = {
    "mu_law": "pcm_mulaw",
    "a_law": "pcm_alaw",
    "pcm_s16le": "pcm_s16le",
    "pcm_s16be": "pcm_s16be",
    "pcm_s8": "pcm_s8",
    "pcm_u8": "pcm_u8",
    "g722": "adpcm_g722",
    "gsm": "gsm",
    "vox": "adpcm_ima_oki",
}
HEADERLESS_CONTAINERS = ("headerless", "vox")  # ``source.container`` of rows that were read as an entry says


class Headerless(Section):
    """How the files of one ending are coded."""

    codec: Coding
    rate_hz: int = Field(ge=4_000, le=192_000)
    channels: int = Field(1, ge=1, le=16)

    @model_validator(mode="after")
    def _fits(self) -> Headerless:
        if self.codec == "g722" and self.rate_hz != G722_RATE_HZ:
            raise ValueError(f"G.722 has {G722_RATE_HZ} Hz and no other rate")
        if self.codec in ("g722", "gsm", "vox") and self.channels != 1:
            raise ValueError(f"{self.codec} has one channel")
        return self


class Usual(NamedTuple):
    """What files of an ending usually are; ``codec`` or ``rate_hz`` is None where that is not agreed upon."""

    title: str
    codec: str | None
    rate_hz: int | None


_LINEAR_RATES_HZ = {"sln": 8_000} | {f"sln{k}": k * 1000 for k in (12, 16, 24, 32, 48, 96, 192)} | {"sln44": 44_100}
USUAL: dict[str, Usual] = {
    **{name: Usual("µ-law", "mu_law", 8_000) for name in ("ul", "ulaw", "mulaw", "pcmu")},
    **{name: Usual("A-law", "a_law", 8_000) for name in ("al", "alaw", "pcma")},
    "g722": Usual("G.722", "g722", G722_RATE_HZ),
    "gsm": Usual("GSM 06.10", "gsm", 8_000),
    **{name: Usual("linear PCM of Asterisk", "pcm_s16le", rate_hz) for name, rate_hz in _LINEAR_RATES_HZ.items()},
    "vox": Usual("Dialogic ADPCM", "vox", None),
    "raw": Usual("PCM", None, None),
    "pcm": Usual("PCM", None, None),
}


def complete_entries(value: Any) -> Any:
    """``archive.headerless`` as written → with what is usual filled in. A list of endings is short for empty entries.

    Raises ValueError where an ending needs more words.
    """
    if isinstance(value, (list, tuple)):
        value = {str(name): None for name in value}
    if not isinstance(value, Mapping):
        return value
    entries = {}
    for name, entry in value.items():
        ending = str(name).lower().lstrip(".")
        usual = USUAL.get(ending)
        given = entry if isinstance(entry, Mapping) else entry.model_dump() if isinstance(entry, Headerless) else {}
        if entry is not None and not isinstance(entry, (Mapping, Headerless)):
            raise ValueError(f"{ending} needs keys and values, such as {{codec: mu_law, rate_hz: 8000}}")
        known = {} if usual is None else {key: value for key, value in usual._asdict().items() if key != "title" and value}
        entries[ending] = {**known, **given}
        missing = [key for key in ("codec", "rate_hz") if key not in entries[ending]]
        if missing:
            raise ValueError(f"{ending} needs {' and '.join(missing)}: nothing is usual for that ending")
    return entries
