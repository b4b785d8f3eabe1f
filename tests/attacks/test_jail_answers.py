"""What a taken-over decoder answers is bounded and checked: it costs its own recording a row, and misleads nobody."""

from __future__ import annotations

import contextlib
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dictalake.audio.answer import check_answer
from dictalake.errors import CorruptAudio, DecoderCrashed
from dictalake.sandbox import process
from dictalake.sandbox.messages import CallLimits, read_answer, send_request
from dictalake.sandbox.pool import Sandbox
from tests.attacks.hostile import answer, run_code


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(answer, CallLimits(cpu_s=20.0, memory_mb=600.0), children=1)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "how",
    [
        *("long value", "nested", "no JSON", "no shape", "wrong shape", "large shape", "no value", "list", "leaves"),
        *("lies about its length", "more than it may", "answers another request"),
    ],
)
def test_an_answer_that_no_decoder_gives_is_a_crash_of_that_recording(sandbox: Sandbox, how: str) -> None:
    with pytest.raises(DecoderCrashed, match="handle this file with caution") as caught:
        sandbox.call(how.encode(), "r1", {})
    assert caught.value.ended is (how == "leaves"), "more memory would not help"
    assert sandbox.call(b"honest", "r2", {})[0] == {"who": "me"}


@pytest.mark.parametrize(
    "reason",
    ["erased", "id_taken", "credentials_expired", "fetch_failed", "access_denied", "expands_too_large", "no_such_reason"],
)
def test_a_child_has_no_say_in_what_it_cannot_know(sandbox: Sandbox, reason: str) -> None:
    """A row that was erased has no URI, and storage that gives nothing ends a run."""
    with pytest.raises(DecoderCrashed, match="claims what it cannot know"):
        sandbox.call(f"claims {reason}".encode(), "r1", {})
    with pytest.raises(CorruptAudio, match="so it is"):
        sandbox.call(b"claims corrupt_audio", "r1", {})


@pytest.mark.parametrize("how", ["detail", "detail of its own"])
def test_the_detail_of_an_error_is_short_and_prints_as_it_stands(sandbox: Sandbox, how: str) -> None:
    with pytest.raises(CorruptAudio) as caught:
        sandbox.call(how.encode(), "r1", {})
    detail = caught.value.detail
    assert len(detail) <= 500
    assert "é" in detail
    assert {unicodedata.category(one) for one in detail} & {"Cc", "Cs", "Cf", "Zl", "Zp"} == set()
    detail.encode()


def test_an_answer_before_the_question_does_not_become_that_of_the_next_recording(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sandbox.call(b"talks on", "r1", {})[0] == {"who": "before"}  # its own recording is its own affair
    # The rest of what it says may be on its way still; it is there once it waits in the socket.
    (child,) = sandbox._idle
    deadline = time.monotonic() + 30
    while not _has_news(child) and time.monotonic() < deadline:
        pass
    asked: list[Any] = []
    monkeypatch.setattr(process, "send_request", lambda to, *request: asked.append(to) or send_request(to, *request))
    assert sandbox.call(b"honest", "r2", {})[0] == {"who": "me"}
    assert len(asked) == 1, "the one that talks on never sees the next recording"
    assert child._socket not in asked


def test_a_shape_that_would_be_made_to_fit_is_none() -> None:
    with pytest.raises(ValueError, match="no shape"):
        read_answer(b'{"value":{},"shape":[-1,3]}', np.zeros(12, np.uint8))


def _has_news(child: Any) -> bool:
    import select

    return bool(select.select([child._socket], [], [], 1)[0])


@pytest.mark.parametrize("machine", ["x32", "i386"])
def test_calls_by_the_numbers_of_another_machine_end_the_process(machine: str) -> None:
    import os

    if os.uname().machine != "x86_64":
        pytest.skip("these numbers are those of x86")
    with_code = Sandbox(run_code, CallLimits(cpu_s=5.0, memory_mb=200.0), children=1)
    with pytest.raises(DecoderCrashed, match="SIGSYS|SIGSEGV" if machine == "i386" else "SIGSYS"):  # a kernel may have no i386
        with_code.call(machine.encode(), "r1", {})
    with_code.close()


HONEST: dict[str, Any] = {
    "format": {
        "container": "wav",
        "codec": "pcm_s16le",
        "sample_rate_hz": 16_000,
        "channels": 1,
        "bits_per_sample": 16,
        "tracks": None,
    },
    "dicom": {"modality": "AU"},
    "patient": {"PatientName": "DOE^JANE"},
    "content_datetime": "2024-02-29T10:00:00+00:00",
    "quality": {
        "duration_s": 1,
        "level_dbfs": None,
        "clipped_ratio": 0.0,
        "dc_offset": -0.1,
        "speech_s": None,
        "lost_s": None,
        "repairs": ["hole"],
    },
    "speech": [[[0.0, 0.5]]],
}
WAVEFORMS = np.zeros((1, 16_000), np.int16)


def check(answer: dict[str, Any], waveforms: np.ndarray = WAVEFORMS) -> dict[str, Any]:
    return check_answer(answer, waveforms, "r1", ["PatientName"], 16_000)


def test_an_honest_answer_passes_as_it_is() -> None:
    known = check(HONEST)
    assert known.pop("content_datetime").isoformat() == HONEST["content_datetime"]
    assert known == {name: value for name, value in HONEST.items() if name != "content_datetime"}


def test_control_characters_of_a_file_do_not_reach_the_lake() -> None:
    assert check({**HONEST, "dicom": {"manufacturer": "A\x1b[31mB"}})["dicom"] == {"manufacturer": "A\ufffd[31mB"}


def put(section: str, **fields: Any) -> dict[str, Any]:
    return {**HONEST, section: {**HONEST[section], **fields}}


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {**HONEST, "more": 1},
        {**HONEST, "speech": []},
        {**HONEST, "speech": [[[0.0]]]},
        {**HONEST, "speech": [[["0", "1"]]]},
        {**HONEST, "content_datetime": "yesterday"},
        {**HONEST, "dicom": {"modality": 7}},
        {**HONEST, "dicom": {"modality": "\ud800"}},
        {**HONEST, "dicom": {"modality": "x" * 10_000}},
        {**HONEST, "patient": {"PatientAddress": "x"}},
        put("format", channels=-1),
        put("format", sample_rate_hz=2**40),
        put("format", codec=None),
        put("quality", duration_s="1"),
        put("quality", lost_s=float("nan")),
        put("quality", duration_s=-1.0),
        put("quality", repairs=["\x1b"]),
        put("quality", repairs=["hole"] * 65),
        put("quality", duration_s=2.0),
        put("quality", speech_s=1.5),
        put("quality", clipped_ratio=1.5),
        put("quality", dc_offset=-2.0),
        put("dicom", **{f"key{n}": "x" for n in range(33)}),
        {**HONEST, "speech": [[[0.5, 0.2]]]},
        {**HONEST, "speech": [[[-0.5, 0.2]]]},
        {**HONEST, "speech": [[[0.5, 1.2]]]},
        {**HONEST, "speech": [[[0.5, 0.7], [0.6, 0.8]]]},
        {**HONEST, "speech": [[[0.5, float("nan")]]]},
        {**HONEST, "speech": [[[True, True]]]},
        {**HONEST, "speech": [7]},
    ],
    ids=str,
)
def test_an_answer_that_later_stages_cannot_take_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(DecoderCrashed):
        check(lie)


def test_more_sound_than_the_limits_allow_is_refused() -> None:
    with pytest.raises(DecoderCrashed):
        check(HONEST, np.zeros((1, 16_001), np.int16))
    with pytest.raises(DecoderCrashed):
        check(HONEST, np.zeros((0, 0), np.int16))


_MEASURE = """
import resource, sys
import numpy as np
from dictalake.audio.answer import check_answer
from dictalake.sandbox.messages import read_answer
from tests.attacks.test_jail_answers import HONEST, WAVEFORMS, check
from dictalake.errors import DecoderCrashed
check(HONEST)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "text":
    try:
        read_answer(b'{"value":{"speech":[' + b"%s," * 2_000_000 + b'1]},"shape":[0,0]}', np.zeros(0, np.uint8))
    except ValueError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
else:
    many = [1] * 500_000
    lie = {**HONEST, "speech": many} if sys.argv[1] == "speech" else {**HONEST, **{str(n): 1 for n in range(300_000)}}
    try:
        check(lie)
    except DecoderCrashed:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("what", "value"), [("text", "{}"), ("text", "[]"), ("text", "1"), ("speech", ""), ("keys", "")], ids=lambda one: one or "-"
)
def test_an_answer_of_many_small_lies_takes_little_memory_here(what: str, value: str) -> None:
    import os
    import subprocess
    import sys

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = _MEASURE.replace("%s", value)
    told = subprocess.run([sys.executable, "-c", program, what], env=environment, capture_output=True, text=True, check=True)
    assert int(told.stdout) < 60_000, "kilobytes"


def test_the_json_of_an_answer_is_bounded_by_its_sound() -> None:
    """Hours of speech with a pause each half second pass; without the sound they do not."""
    import json
    import socket
    import threading

    from dictalake.sandbox import messages

    hours = 2
    intervals = [[n * 0.42, n * 0.42 + 0.12] for n in range(int(hours * 3600 / 0.42))]
    value = {"value": {"speech": [intervals]}, "nonce": "n"}
    for samples in (16_000 * 3600 * hours, 16_000):
        ours, theirs = socket.socketpair()
        data = np.zeros((1, samples), np.int16)
        text = json.dumps({**value, "shape": data.shape}).encode()

        def send(channel: socket.socket = theirs, text: bytes = text, data: np.ndarray = data) -> None:
            with channel, contextlib.suppress(OSError):
                messages.send_answer(channel, text, data.reshape(-1).view(np.uint8).data)

        sender = threading.Thread(target=send)
        sender.start()
        with ours:
            if samples > 16_000:
                answer, _ = messages.read_answer(*messages.receive_answer(ours, data.nbytes), "n")
                assert answer["value"]["speech"][0] == intervals
            else:
                with pytest.raises(ValueError, match=r"length|values"):
                    messages.read_answer(*messages.receive_answer(ours, data.nbytes), "n")
        sender.join()
