"""Before a run lists anything: under which name the lake knows its request, and what it means if the lake does not know it.

A new fingerprint means that everything in the archive is transcribed again. Here it is said, from the lake alone, what differs
from production, how much was done under what is there, and what that costs to do again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dictalake import logs
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.lake.delta import has_table
from dictalake.lake.fingerprints import KnownFingerprints, list_fingerprints, read_fingerprints
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.storage import open_storage
from dictalake.transcript.provenance import HASHED, HASHED_SINCE, Provenance
from dictalake.workflow.estimates import estimate_work

OnNew = Literal["tell", "refuse", "pass"]
_MOST_NAMED = 4
_DONE = "SELECT count(*), coalesce(sum(quality.duration_s), 0.0) FROM transcripts"
_SPEED = "SELECT sum(audio_hours) * 3600 / nullif(sum(wall_s), 0) FROM runs WHERE ok > 0"
_LABELS = {
    "acoustic.model_sha256": "model",
    "acoustic.kind": "acoustic.kind",
    "decoding.lm_sha256": "language model",
    "decoding.hotwords_sha256": "hotwords",
}


@dataclass(frozen=True)
class NewFingerprint:
    """``recordings`` of ``audio_s`` are done in the lake, and differ from this run in ``differences`` (from ``other``).

    ``speed`` is audio seconds in a wall second, of the runs of the lake; None where no run says it.
    """

    fingerprint: str
    other: str
    differences: tuple[str, ...]
    recordings: int
    audio_s: float
    speed: float | None = None
    price_per_hour: float | None = None
    currency: str = ""

    @property
    def cost(self) -> float | None:
        """Of transcribing the same again, at ``report.price_per_hour`` of wall time and the speed so far."""
        if self.price_per_hour is None or not self.speed:
            return None
        return self.audio_s / self.speed / 3600 * self.price_per_hour

    def __str__(self) -> str:
        shown = list(self.differences[:_MOST_NAMED])
        more = len(self.differences) - len(shown)
        what = ", ".join(shown) + (f" and {more} more" if more else "") if shown else "what the lake did not record"
        cost = f", about {self.cost:,.2f} {self.currency}" if self.cost is not None else ""
        done = f"{self.recordings:,} recording{' is' if self.recordings == 1 else 's are'} done in the lake"
        return (
            f"fingerprint {self.fingerprint} is new to this lake and differs from {self.other} in {what}; {done} "
            f"({self.audio_s / 3600:,.1f} audio hours{cost}) and would be transcribed again"
        )


def take_name(config: Config, provenance: Provenance) -> Provenance:
    """``provenance`` with the name under which the lake knows the same request. Raises RunError.

    A lake of 0.1.0 named it by its spelling: the bytes of the model's files and of the hotwords, and keys without effect.
    """
    there, known = _look(config)
    names = (provenance.fingerprint, known.aliases.get(provenance.fingerprint), provenance.spelling)
    found = next((name for name in names if name in there), provenance.fingerprint)
    return replace(provenance, fingerprint=found)


def tell_of_new(config: Config, provenance: Provenance, on_new: OnNew) -> bool:
    """Says before the archive is listed that all of it would be transcribed again. Raises ConfigError to refuse that.

    Returns whether there was something to say.
    """
    new = None if on_new == "pass" else find_new(config, provenance)
    if new is None:
        return False
    if on_new == "refuse":
        raise ConfigError(f"{new}; give --new-fingerprint to begin that, or set these keys back")
    line = f"{new}; they stay what the view transcripts shows until this fingerprint is promoted"
    logs.log_event("new_fingerprint", line, level=logs.WARNING, fingerprint=new.fingerprint, recordings=new.recordings)
    return True


def tell_of_work(config: Config, recordings: int, size_bytes: int) -> None:
    """Says once the archive is listed what all of it will take, by what the lake holds already."""
    found = estimate_work(config, size_bytes)
    if found.audio_hours is None:
        return
    cost = "" if found.cost is None else f", about {found.cost:,.2f} {config.report.currency}"
    line = f"to do: {recordings:,} objects of {size_bytes / 1e6:,.1f} MB, about {found.audio_hours:,.1f} audio hours{cost}"
    logs.log_event("new_fingerprint", line, level=logs.WARNING, recordings=recordings)


def find_new(config: Config, provenance: Provenance) -> NewFingerprint | None:
    """What a run means whose fingerprint the lake does not know; None where it knows it or holds nothing. Raises RunError."""
    there, known = _look(config)
    if not there or provenance.fingerprint in there:
        return None
    assert config.lake.uri is not None
    with connect(config.lake.uri, config.lake.storage_options, names=("transcripts", "runs")) as lake:
        [(recordings, audio_s)] = lake.sql(
            "SELECT count(*), coalesce(sum(quality.duration_s), 0.0) FROM transcripts"
        ).fetchall()
        [(speed,)] = lake.sql("SELECT sum(audio_hours) * 3600 / nullif(sum(wall_s), 0) FROM runs WHERE ok > 0").fetchall()
        promoted = [name for names in known.promoted for name in names if name in there]
        newest = lake.execute(
            "SELECT fingerprint FROM runs WHERE list_contains(?, fingerprint) ORDER BY started_at DESC NULLS LAST LIMIT 1",
            [promoted or sorted(there)],
        ).fetchall()
        other = known.production if known.production in there else (newest[0][0] if newest else min(promoted or there))
        recorded = lake.execute(
            "SELECT config, acoustic_hash, decoding_hash FROM runs WHERE fingerprint = ? AND acoustic_hash IS NOT NULL "
            "ORDER BY started_at DESC NULLS LAST LIMIT 1",
            [other],
        ).fetchall()
    parts = known.read_parts(other)
    if parts is not None:
        differences = tuple(compare_parts(parts, provenance.parts))
    else:
        differences = tuple(_compare_record(recorded[0], config, provenance)) if recorded else ()
    price = config.report.price_per_hour
    return NewFingerprint(provenance.fingerprint, other, differences, recordings, audio_s, speed, price, config.report.currency)


def _look(config: Config) -> tuple[set[str], KnownFingerprints]:
    if not has_table(open_storage(config.lake, TRANSCRIPTS_FOLDER)):
        return set(), KnownFingerprints()
    return set(list_fingerprints(config.lake)), read_fingerprints(config.lake)


def compare_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two fingerprints, each in a few words: ``decoding.beam_width 8 → 9``."""
    before, after = dict(_flatten(old)), dict(_flatten(new))
    for key in sorted({*before, *after} - {"model"}, key=lambda key: (not key.endswith(".kind"), key not in _LABELS, key)):
        was, now = before.get(key), after.get(key)
        kind = "decoding.kind" if key.startswith("decoding.") else "acoustic.kind"
        # What another kind of decoder or model has beside is no news.
        if was == now or (before.get(kind) != after.get(kind) and not (key in before and key in after)):
            continue
        if key == "acoustic.model_sha256":
            names = old.get("model"), new.get("model")
            yield f"model {names[0]} → {names[1]}" if names[0] != names[1] else f"the files of model {names[1]}"
        elif key in _LABELS and key.endswith("sha256"):
            yield _LABELS[key] if was and now else f"{_LABELS[key]} ({'new' if now else 'gone'})"
        else:
            yield f"{_LABELS.get(key, key)} {_show(was)} → {_show(now)}"


def _compare_record(record: tuple[str | None, str, str], config: Config, provenance: Provenance) -> Iterator[str]:
    """The same by a run's record, where no run of 0.2 described the fingerprint: by its hashes and its configuration."""
    text, acoustic_hash, decoding_hash = record
    try:
        then = json.loads(text or "{}")
    except ValueError:  # "erased"
        then = {}
    now = config.model_dump(mode="json")
    keys = {section: (*HASHED[section], *HASHED_SINCE[section]) for section in HASHED}
    keys["acoustic"] = ("model", "revision", *keys["acoustic"])
    keys["decoding"] = ("kind", "lm", "hotwords", *keys["decoding"])
    named: dict[str, list[str]] = {"acoustic": [], "decoding": []}
    for section, names in keys.items():
        for key in names:
            was, is_now = then.get(section, {}).get(key, _UNKNOWN), now[section][key]
            if was is not _UNKNOWN and was != is_now:
                part = "decoding" if section == "decoding" else "acoustic"
                named[part].append(f"{section}.{key} {_show(was)} → {_show(is_now)}")
    for part, was, is_now in (
        ("acoustic", acoustic_hash, provenance.acoustic_hash),
        ("decoding", decoding_hash, provenance.decoding_hash),
    ):
        if was != is_now:
            yield from named[part] or [f"the files of the {'model' if part == 'acoustic' else 'language model or hotwords'}"]


_UNKNOWN = object()


def _flatten(parts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in parts.items():
        name = f"{path}{key}".replace("acoustic.windows", "windows")
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _show(value: Any) -> str:
    return "none" if value is None else json.dumps(value) if not isinstance(value, str) else value
