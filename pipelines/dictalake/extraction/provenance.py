"""What made an extraction: the model, the prompt, the schema, and how the model is asked.

A change of these is another fingerprint, under which every transcript is read again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from dictalake.config.sections import Config
from dictalake.extraction.answer_schema import SCHEMA_VERSION
from dictalake.extraction.checking import CHECKING_VERSION
from dictalake.extraction.model_files import find_folder, hash_model, name_model
from dictalake.extraction.prompt import PROMPT_VERSION, describe_prompt
from dictalake.transcript.provenance import git_commit, installed_versions, library_versions, pipeline_version

# Keys of ``extract`` that can change what is extracted. The others change the speed, or where the model runs.
HASHED = ("kind", "revision", "max_tokens", "part_chars", "dtype")
_LIBRARIES = ("openai", "llguidance", "vllm")
_DIGITS = 12


@dataclass(frozen=True)
class ExtractProvenance:
    """What all rows of a run share. ``parts`` is what the fingerprint stands for, ``constraint`` what a probe found."""

    run_id: str
    fingerprint: str
    parts: Mapping[str, Any]
    row: Mapping[str, Any]
    constraint: Mapping[str, bool | None]


def make_extract_provenance(config: Config, constraint: Mapping[str, bool | None]) -> ExtractProvenance:
    """Names a run. Hashes the model's files where they are here; of a server only its word is known. Raises ConfigError."""
    settings = config.extract
    model_sha256 = None if settings.kind == "openai" else hash_model(find_folder(settings))
    parts = {
        "model": model_sha256 or settings.model,
        "prompt": describe_prompt(),
        "schema": SCHEMA_VERSION,
        "checking": CHECKING_VERSION,
        "decoding": "greedy",
        **{name: getattr(settings, name) for name in HASHED},
    }
    fingerprint = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]
    row = {
        "pipeline_version": pipeline_version(),
        "git_commit": git_commit(),
        "kind": settings.kind,
        "model": name_model(settings),
        "revision": settings.revision,
        "model_sha256": model_sha256,
        "constrained": constraint.get("is_constrained"),
        "prompt_version": PROMPT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "versions": list((library_versions() | installed_versions(_LIBRARIES)).items()),
    }
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    return ExtractProvenance(run_id, fingerprint, parts, row, constraint)
