"""Transcripts a second of `dictalake extract` against its server alone, with the same requests at the same concurrency.

    python -m tests.extract_speed --transcripts 160 --delay 2 --out infra/benchmarks/extract_speed.json

The server answers by rules after ``--delay`` seconds, as one whose model takes that long. The time of both runs from the first
request of a transcript to the last answer; what comes before, the start of Ray, is given apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from dictalake.extraction.extract import extract
from dictalake.extraction.model import Request
from dictalake.extraction.prompt import make_messages
from dictalake.extraction.server_model import ServerModel
from tests.extracted_lake import TEXT, fill_lake, make_config
from tests.model_server import ModelServer, serving


class TimedServer(ModelServer):
    """Knows when the first transcript was asked about and when the last answer was given."""

    first = last = 0.0

    def _answer(self, body: dict[str, Any]) -> Any:
        now = time.monotonic()
        if len(body["messages"][0]["content"]) > 1000:  # no probe
            self.first = self.first or now - self.delay_s
            self.last = now
        return super()._answer(body)


def measure(folder: Path, transcripts: int, delay_s: float, concurrency: int) -> dict[str, Any]:
    lake = fill_lake(folder / "lake", transcripts)
    bare, ours = TimedServer(delay_s=delay_s), TimedServer(delay_s=delay_s)
    with (
        serving(bare.app) as address,
        closing(ServerModel(make_config(lake, address, concurrency=concurrency).extract)) as model,
    ):
        model.answer([Request(f"r{n}", make_messages(TEXT.format(dose=10 + n))) for n in range(transcripts)])
    with serving(ours.app) as address:
        began = time.monotonic()
        summary = extract(make_config(lake, address, concurrency=concurrency))
        whole_s = time.monotonic() - began
    assert summary.ok == transcripts
    rates = [transcripts / (server.last - server.first) for server in (bare, ours)]
    return {
        "transcripts": transcripts,
        "delay_s": delay_s,
        "concurrency": concurrency,
        "bare_per_s": round(rates[0], 3),
        "extract_per_s": round(rates[1], 3),
        "ratio": round(rates[1] / rates[0], 3),
        "before_first_request_s": round(ours.first - began, 1),
        "whole_run_s": round(whole_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=160)
    parser.add_argument("--delay", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), arguments.transcripts, arguments.delay, arguments.concurrency)
    print(json.dumps(found, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
