"""How long somebody waits for the sound of a long recording on the page that shows it, and then for a word of it.

    python -m jobs.benchmarks long-sound --out infra/benchmarks

An hour of dictation (that of the demo archive again and again) as MP3 is transcribed without the language model. `dictalake
review` shows it. From the request for its page on: the seconds until the page has the wave, which is when the sound is ready.
Then words all over the hour are asked for as a browser does that jumps to one: the seconds to the first byte, and to two
seconds of sound. Each round has a new server. Its peak of memory is that of the last one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console

from dictalake.config.locations import ASSETS
from dictalake.errors import RunError
from dictalake.records import SAMPLE_RATE_HZ
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.review import Client

_SPOKEN = ASSETS / "demo-archive/recordings/radiology/ct-chest-staging.mp3"
_BYTES_S = 2 * SAMPLE_RATE_HZ


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks long-sound", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--words", type=int, default=50, help="asked for in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder for long_sound.json")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        archive, lake = Path(folder) / "archive", Path(folder) / "lake"
        archive.mkdir()
        write_long(archive / "hour.mp3", 60 * options.minutes)
        places = ["--archive.uri", str(archive), "--lake.uri", str(lake)]
        subprocess.run([sys.executable, "-m", "dictalake", "backfill", *places, "--decoding.kind", "greedy"], check=True)
        rounds = [_look(places, options.words) for _ in range(options.rounds)]
    for one in rounds:
        Console().print(
            f"sound ready {one['ready_s']} s after the page was asked for (page {one['page_s']} s); a word: first byte "
            f"p95 {one['word_p95_s']} s, two seconds of it {one['two_seconds_p95_s']} s; server {one['peak_mb']} MB"
        )
    write_result({"bench": "long-sound", "minutes": options.minutes, "rounds": rounds}, options.out / "long_sound.json")
    return 0


def write_long(path: Path, seconds: float) -> None:
    """MP3 of so many seconds, at the rate of the recording that it repeats."""
    sound, rate = soundfile.read(_SPOKEN, dtype="float32")
    with soundfile.SoundFile(path, "w", rate, channels=1 if sound.ndim == 1 else sound.shape[1], format="MP3") as file:
        left = int(seconds * rate)
        while left:
            file.write(sound[:left])
            left -= min(left, len(sound))


def _look(places: list[str], words: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "dictalake", "review", *places, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().split()[-1])
            [recording] = set(client.list_recordings())
            started = time.perf_counter()
            page_s, _ = client.get(f"/recordings/{recording}")
            while (wave := json.loads(client.get(f"/sound/{recording}/wave.json")[1]))["state"] == "loading":
                pass
            ready_s = time.perf_counter() - started
            if wave["state"] != "ready":
                raise RunError(f"the sound did not come: {wave['why']}")
            first, whole = [], []
            for at_s in np.random.default_rng(0).uniform(0, wave["duration_s"] - 2, words):
                begin = 44 + 2 * int(at_s * SAMPLE_RATE_HZ)
                asked = time.perf_counter()
                first.append(client.get(f"/sound/{recording}/mix.wav", Range=f"bytes={begin}-{begin + 2 * _BYTES_S - 1}")[0])
                whole.append(time.perf_counter() - asked)
            status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        finally:
            server.terminate()
    return {
        "page_s": round(page_s, 3),
        "ready_s": round(ready_s, 2),
        "word_p95_s": round(float(np.percentile(first, 95)), 4),
        "two_seconds_p95_s": round(float(np.percentile(whole, 95)), 4),
        "peak_mb": int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024,
    }


if __name__ == "__main__":
    sys.exit(main())
