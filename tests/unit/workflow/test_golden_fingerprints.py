"""What 0.1.0 called its shipped configurations: a lake of it is resumed, not transcribed again, as long as these stay."""

from __future__ import annotations

import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.acoustic.engines.base import resolve_engine
from dictalake.config.load import load_config
from dictalake.records import make_recording_id
from dictalake.transcript.provenance import make_provenance
from dictalake.workflow.identity import identify

EMBEDDED = [  # keys beside the shipped demo.yaml → fingerprint
    ({}, "6c049c4aa901"),
    ({"decoding.kind": "greedy"}, "1c6ac1e67650"),
    ({"acoustic.dtype": "float32"}, "4b897dc14d68"),
    ({"decoding.beam_width": "16", "decoding.lm": "null"}, "df0a8a788132"),
    ({"windows.overlap_s": "4"}, "fc974a4001d1"),
    ({"formatting.numbers": "true"}, "6c049c4aa901"),
]
# Shipped configurations of models that are not here: with weights of hash 00…0 and without a language model
OTHERS = [("medasr", "bc2db840be11"), ("parakeet", "7ec3d1e37aec"), ("whisper", "45c6eecc48e8"), ("qwen3-asr", "696358f1ddff")]


@pytest.mark.parametrize(("keys", "fingerprint"), EMBEDDED, ids=lambda value: str(value))
def test_the_embedded_model_keeps_the_fingerprints_of_0_1_0(keys: dict[str, str], fingerprint: str) -> None:
    config = load_config("demo", list(keys.items()), environment={})
    assert identify(config, find_checkpoint(config.acoustic)).fingerprint == fingerprint


def test_without_a_configuration_the_fingerprint_is_that_of_the_demo() -> None:
    config = load_config(environment={})
    assert identify(config, find_checkpoint(config.acoustic)).fingerprint == EMBEDDED[0][1]


@pytest.mark.parametrize(("name", "fingerprint"), OTHERS)
def test_the_shipped_configurations_keep_the_fingerprints_of_0_1_0(name: str, fingerprint: str) -> None:
    config = load_config(name, [("decoding.lm", "null")], environment={})
    engine = resolve_engine(config.acoustic).hashed if config.acoustic.gives_text else None
    provenance = make_provenance(
        config, "run", model_id="m", model_revision=None, model_sha256="0" * 64, decoder="d", engine=engine
    )
    assert provenance.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("uri", "version", "recording_id"),
    [
        ("gs://bucket/a.wav", "17", "5b553fa941349bd7ddab4c8f45348263"),
        ("/data/a.zip#b/c.wav", "5-99", "c976833980dd7c05505f717d01762afd"),
        ("/data/ü.wav", "1", "1c82a463d1d98283247abba4125fe505"),
    ],
)
def test_recordings_keep_the_ids_of_0_1_0(uri: str, version: str, recording_id: str) -> None:
    assert make_recording_id(uri, version) == recording_id
