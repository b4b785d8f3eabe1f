"""Tries out in a child process what this machine can do in bfloat16.

The processor's flags do not answer this: ``ONEDNN_MAX_CPU_ISA`` and ``ATEN_CPU_CAPABILITY`` hide instructions from the
libraries, and a virtual machine may announce instructions that end the process. The child takes about two seconds, so the
answer is kept until the next boot. This file is also the child's script, so it imports nothing of dictalake.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

Bfloat16 = Literal["packed", "plain", "none"]
"""``packed``: fast, with weights arranged for oneDNN; ``plain``: slowly, by PyTorch's usual way; ``none``: not at all."""

_BOOT_ID, _PROCESSOR = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/cpuinfo")
_ISA_VARIABLES = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
_PATIENCE_S = 120.0
_FINAL = (0, -signal.SIGILL, -signal.SIGSEGV)  # any other end of the child says nothing about the processor


@functools.cache
def try_bfloat16() -> Bfloat16:
    """What works here. Runs the child process once a boot."""
    answer = _find_answer_file()
    if answer is not None and (known := _read_answer(answer)) is not None:
        return known
    outcome, is_final = run_probe()
    if answer is not None and is_final:
        _write_answer(answer, outcome)
    return outcome


def run_probe(script: Path = Path(__file__)) -> tuple[Bfloat16, bool]:
    """Runs ``script`` as a child. Returns the last outcome that it printed, and whether it is final."""
    # -P keeps this folder, whose modules have common names, off the child's path.
    command = [sys.executable, "-P", str(script)]
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        # A child that was short of memory, or could not import PyTorch, says nothing about the processor.
        output, is_final = child.stdout, child.returncode in _FINAL
    except subprocess.TimeoutExpired as error:
        output, is_final = error.stdout or b"", False
    words = output.decode(errors="replace").split()
    for outcome in get_args(Bfloat16):
        if outcome in words:
            return outcome, is_final
    return "none", is_final


def _find_answer_file() -> Path | None:
    """One file for each boot, processor, PyTorch and library setting; None if the system has no boot id."""
    try:
        boot_id, processor = _BOOT_ID.read_text(), _PROCESSOR.read_text()
    except OSError:
        return None
    flags = next((line for line in processor.splitlines() if line.startswith("flags")), "")
    settings = [os.environ.get(name, "") for name in _ISA_VARIABLES]
    key = sha256("\n".join([boot_id, flags, metadata.version("torch"), *settings]).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"dictalake-bfloat16-{os.getuid()}-{key}"


def _read_answer(path: Path) -> Bfloat16 | None:
    try:
        if path.stat().st_uid != os.getuid():  # anybody may write to the folder
            return None
        text = path.read_text(errors="replace")
    except OSError:
        return None
    return next((outcome for outcome in get_args(Bfloat16) if outcome == text), None)


def _write_answer(path: Path, outcome: Bfloat16) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with open(descriptor, "w") as file:
            file.write(outcome)
        os.replace(name, path)
    except OSError:
        return  # the next process runs the probe again


def _try_out() -> None:
    """Runs in the child: prints each outcome as soon as it is certain. A missing instruction ends the process."""
    import torch
    from torch.nn import functional

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=torch.bfloat16)

    with torch.inference_mode():
        rows, weight = ones(2, 200, 256), ones(256, 256)
        results = [
            functional.linear(rows, weight) / 256,
            torch.matmul(rows, rows.transpose(1, 2)) / 256,
            functional.conv1d(ones(2, 256, 200), ones(256, 256, 1)) / 256,
            functional.conv2d(ones(2, 256, 1, 200), ones(256, 1, 1, 4), groups=256) / 4,
        ]
        if not all(bool((result == 1).all()) for result in results):
            return
        print("plain", flush=True)
        onednn = runpy.run_path(str(Path(__file__).with_name("onednn.py")))
        try:
            packed = onednn["pack_weight"](weight)
            is_right = bool((onednn["multiply"](rows, packed, None, "none") == 256).all())
        except onednn["REFUSALS"] as error:
            if "memory" in str(error):
                raise
            return
        if is_right:
            print("packed", flush=True)


if __name__ == "__main__":
    _try_out()
