"""A server that speaks OpenAI's protocol on 127.0.0.1, for tests and benchmarks of `dictalake extract`.

    python -m tests.model_server --port 8000 --mode good

Its model copies sentences of the transcript by rules, so it needs no weights and answers at once. ``modes`` are servers that
keep to the schema (``good``) and servers that do not.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dictalake.extraction.answer_schema import KINDS

_TRANSCRIPT = re.compile(r"^(\[transcript [0-9a-f]{8}\])\n(.*)\n\1$", re.DOTALL | re.MULTILINE)
_DOSE = re.compile(r"(\w+) (\d+) mg")


def read_transcript(messages: list[dict[str, str]]) -> str | None:
    """The transcript in a prompt of ours; None where there is none, as in a probe."""
    found = _TRANSCRIPT.search(messages[-1]["content"])
    return found[2] if found else None


def answer_by_rules(text: str) -> dict[str, Any]:
    """One item of each kind for each sentence that has what it takes."""
    lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for sentence in filter(None, (one.strip() for one in re.split(r"(?<=[.])\s+", text))):
        lists["findings"].append(
            {"term": sentence.split()[-1].strip("."), "quote": sentence, "negated": sentence.startswith("No ")}
        )
        lists["impressions"].append({"quote": sentence})
        lists["follow_ups"].append({"what": sentence.split()[0], "quote": sentence})
        for drug, dose in _DOSE.findall(sentence):
            lists["medications"].append({"drug": drug, "dose": int(dose), "unit": "mg", "quote": f"{drug} {dose} mg"})
            lists["lab_values"].append({"test": drug, "value": dose, "quote": sentence})
    return lists


class ModelServer:
    """Counts requests, and how many it had at once. ``fail`` is asked before each: a response that it gives is sent."""

    def __init__(self, mode: str = "good", delay_s: float = 0.0) -> None:
        self.mode, self.delay_s = mode, delay_s
        self.requests = self.most_at_once = self._now = 0
        self.fail: Callable[[int], Response | None] = lambda number: None
        self._lock = threading.Lock()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])

    async def _complete(self, request: Request) -> Response:
        import asyncio

        body = await request.json()
        with self._lock:
            self.requests += 1
            number = self.requests
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            return self.fail(number) or self._answer(body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, body: dict[str, Any]) -> Response:
        text = read_transcript(body["messages"])
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if self.mode == "refuses" and schema is not None:
            return JSONResponse({"error": {"message": "response_format is not supported"}}, 400)
        if text is None:
            word = schema["properties"]["word"]["enum"][0] if schema else ""
            return complete(json.dumps({"word": word}) if self.mode == "good" else "Hello!")
        answer = answer_by_rules(text)
        match self.mode:
            case "good" | "refuses":
                return complete(json.dumps(answer))
            case "careless":  # keeps to no schema, and invents
                invented = {"term": "cancer", "quote": "a mass that nobody mentioned", "side": "upper"}
                answer["findings"] += [invented, {**invented, "side": "left"}, "cancer"]
                answer["plan"] = "operate"
                return complete(f"Sure! Here is the JSON:\n```json\n{json.dumps(answer)}\n```\nAnything else?")
            case "prose":
                return complete("The patient is well.")
            case "half":
                return complete(json.dumps(answer)[:-20])
            case "cut_off":
                return complete(json.dumps(answer)[:-20], finish_reason="length")
            case "empty":
                return complete("")
            case "endless":

                def pour() -> Iterator[bytes]:
                    while True:
                        yield b'{"findings": [' * 4096

                return StreamingResponse(pour(), media_type="application/json")
            case "html":
                return Response("<html>login</html>", media_type="text/html")
        raise ValueError(self.mode)


def complete(text: str, finish_reason: str = "stop", tokens: int | None = None) -> JSONResponse:
    """A chat completion as OpenAI's protocol has it."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": tokens or len(text) // 4,
        "total_tokens": 10 + (tokens or len(text) // 4),
    }
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    return JSONResponse(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "test", "choices": [choice], "usage": usage}
    )


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of ``app`` on a free port of 127.0.0.1, for OpenAI's clients."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mode", default="good")
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    app = ModelServer(arguments.mode, arguments.delay).app
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="error")


if __name__ == "__main__":
    main()
