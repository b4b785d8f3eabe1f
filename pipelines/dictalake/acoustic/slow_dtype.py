"""Whether this machine computes in the dtype that the configuration asks for, and what to say where it does not."""

from __future__ import annotations

from importlib.util import find_spec

from dictalake.config.sections import Acoustic


def explain_slow_dtype(acoustic: Acoustic) -> str | None:
    """A warning that names the key, what was asked for and what runs; None where this machine does what was asked.

    Only ``bfloat16`` may be slow or missing. Nothing is imported or tried for another dtype.
    """
    if acoustic.dtype != "bfloat16":
        return None
    if acoustic.kind == "whisper":
        if find_spec("ctranslate2") is None:
            return None  # the run is refused for that

        from dictalake.acoustic.engines.whisper import explain_compute_type

        return explain_compute_type(acoustic)

    from dictalake.acoustic.device import choose_device, explain_dtype

    return explain_dtype(acoustic.dtype, choose_device(acoustic.device))
