"""What ``errors.py`` says of each reason: its stage, whether a new try may succeed, what happened and what to do."""

from __future__ import annotations

import re

from dictalake.config.load import list_keys
from dictalake.errors import LoadError, TranscriptionError, advise, list_failures, list_reasons

# Rows of every lake hold these; a change would make ``--retry-failed`` and people's queries miss them.
RETRYABLE = {
    "changed_during_read",
    "credentials_expired",
    "fetch_failed",
    "internal_error",
    "model_failed",
    "model_timeout",
    "model_unreachable",
    "no_memory_slot",
    "worker_crashed",
}
STAGES = {
    "answer_cut_off": "extract",
    "answer_invalid": "extract",
    "decoder_failed": "decode",
    "internal_error": "any",
    "model_failed": "emit, hear",
    "model_refused": "extract",
    "model_timeout": "extract",
    "model_unreachable": "extract",
    "worker_crashed": "any",
}


def test_each_reason_is_listed_once_with_its_stage_and_whether_a_new_try_may_succeed() -> None:
    failures = list_failures()
    assert sorted(failure.reason for failure in failures) == list_reasons()
    assert len({failure.reason for failure in failures}) == len(failures) == 38
    assert {failure.reason for failure in failures if failure.retryable} == RETRYABLE
    assert {failure.reason: failure.stage for failure in failures if failure.stage != LoadError.stage} == STAGES


def test_each_reason_has_a_meaning_and_advice_of_its_own() -> None:
    failures = list_failures()
    assert not any(failure.meaning == TranscriptionError.meaning for failure in failures)
    assert not any(failure.advice == TranscriptionError.advice for failure in failures)
    assert len({failure.meaning for failure in failures}) == len(failures)
    assert all(text.endswith(".") for failure in failures for text in (failure.meaning, failure.advice))


def test_every_configuration_key_and_reason_that_the_texts_name_exists() -> None:
    texts = [f"{failure.meaning} {failure.advice}" for failure in list_failures()]
    named = {name for text in texts for name in re.findall(r"\b(?:limits|archive)\.[a-z_]+", text)}
    assert len(named) > 8
    assert named <= {key.name for key in list_keys()}
    retried = {name for text in texts for name in re.findall(r"--retry-failed ([a-z_]+_[a-z]+)", text)}
    assert len(retried) > 5
    assert retried <= set(list_reasons())


def test_a_reason_of_another_version_gets_general_advice() -> None:
    assert advise("too_long").startswith("Split the recording")
    assert advise("from_the_future") == "Read error.detail, or use the version of dictalake that wrote the row."
