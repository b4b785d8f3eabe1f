"""A decoder with threads: of Python, of numpy, and of FFmpeg."""

from __future__ import annotations

import io
import threading
from typing import Any

import av
import numpy as np


def work_in_threads(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    together = threading.Barrier(8)
    counts: list[int] = []

    def work() -> None:
        together.wait(60)
        counts.append(int(np.ones((200, 200)).dot(np.ones((200, 200)))[0, 0]))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with av.open(io.BytesIO(data)) as file:
        context = file.streams.audio[0].codec_context
        context.thread_count, context.thread_type = 4, "FRAME"
        blocks = [frame.to_ndarray() for frame in file.decode(audio=0)]
    samples = np.concatenate(blocks, axis=1)
    found = {"python": len(counts), "frames": int(samples.shape[1]), "most_threads": context.thread_count == 4}
    return found, samples[:1].astype(np.int16)
