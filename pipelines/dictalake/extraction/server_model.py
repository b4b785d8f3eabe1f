"""A language model behind a server that speaks OpenAI's protocol: vLLM, LM Studio, a Vertex endpoint …

The client is OpenAI's own. It is given an address in every case, so it never goes to OpenAI unless that is the address.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from dictalake.config.extraction import Extract
from dictalake.errors import (
    AnswerCutOff,
    AnswerInvalid,
    ConfigError,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    RunError,
    TranscriptionError,
)
from dictalake.extraction.model import Reply, Request
from dictalake.extraction.prompt import JSON_SCHEMA, Message

_CONNECT_S = 10.0
_BYTES_PER_TOKEN = 64  # of JSON around an answer; no tokenizer has tokens of that many bytes on average
_LEAST_BYTES = 65_536


class ServerModel:
    """Sends requests, at most ``extract.concurrency`` at the same time, whoever asks."""

    def __init__(self, settings: Extract, constraint: Mapping[str, bool | None] | None = None) -> None:
        """``constraint`` is what ``probe`` said before; None: nobody has asked. Raises ConfigError without an address."""
        if settings.server is None:
            raise ConfigError(
                "extract.server is missing: say where the model answers, e.g. --extract.server http://127.0.0.1:8000/v1"
            )
        self._settings = settings
        found = constraint or {}
        self.is_constrained = found.get("is_constrained")
        self._takes_schema = found.get("takes_schema") is not False
        self._client = openai.OpenAI(
            base_url=settings.server,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # servers of one's own ask for none
            organization="",
            project="",
            max_retries=settings.tries - 1,
            timeout=openai.Timeout(settings.request_s, connect=min(_CONNECT_S, settings.request_s)),
            http_client=openai.DefaultHttpxClient(
                limits=openai.DEFAULT_CONNECTION_LIMITS,
                follow_redirects=False,
                trust_env=not _is_this_machine(settings.server),  # a proxy would carry transcripts off it
            ),
        )
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="requests")

    def answer(self, requests: Sequence[Request]) -> list[Reply | TranscriptionError]:
        return list(self._pool.map(self._answer_one, requests))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _answer_one(self, request: Request) -> Reply | TranscriptionError:
        try:
            return self._read(request)
        except TranscriptionError as error:
            return error

    def _read(self, request: Request) -> Reply:
        """Raises a TranscriptionError. Its words quote nothing of the server's."""
        one = request.recording_id
        options = {"response_format": _wrap_schema("dictation", JSON_SCHEMA)} if self._takes_schema else {}
        try:
            completion = self._ask(request.messages, self._settings.max_tokens, options)
        except (openai.APITimeoutError, httpx2.TimeoutException):
            raise ModelTimeout(one, f"no answer within extract.request_s = {self._settings.request_s:g}") from None
        except (openai.APIConnectionError, httpx2.TransportError) as error:  # the latter while the body is read
            raise ModelUnreachable(one, f"no connection ({type(error.__cause__ or error).__name__})") from None
        except openai.APIStatusError as error:
            refusal = f"the server answered with HTTP status {error.status_code}"
            kind = ModelUnreachable if error.status_code in (408, 409, 429) or error.status_code >= 500 else ModelRefused
            raise kind(one, refusal) from None
        except (TimeoutError, openai.APIError) as error:
            raise ModelTimeout(one, f"the answer did not end ({type(error).__name__})") from None
        except (ValidationError, ValueError):
            raise AnswerInvalid(one, "the server's answer is none of OpenAI's protocol") from None
        return _take_reply(one, completion)

    def _ask(self, messages: Sequence[Message], max_tokens: int, options: Mapping[str, Any]) -> ChatCompletion:
        """One completion. The body is read in pieces, so that one that never ends is left: raises TimeoutError."""
        ends_at = time.monotonic() + self._settings.request_s * self._settings.tries
        most = max(_LEAST_BYTES, max_tokens * _BYTES_PER_TOKEN)
        body = bytearray()
        request: Any = {"model": self._settings.model, "messages": list(messages), "temperature": 0.0, "max_tokens": max_tokens}
        with self._client.chat.completions.with_streaming_response.create(**request, **options) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > most or time.monotonic() > ends_at:
                    raise TimeoutError
        return ChatCompletion.model_validate_json(bytes(body))

    def probe(self) -> dict[str, bool | None]:
        """Asks for an answer that only a constrained model gives, and says what it found: ``takes_schema``, whether the server
        accepts a JSON schema, and ``is_constrained``, whether it keeps to it. After HTTP status 400 it asks without a schema.

        Raises ConfigError where the server refuses that too, the model or the key, RunError where it does not answer.
        """
        token = secrets.token_hex(8)
        schema = {
            "type": "object",
            "properties": {"word": {"type": "string", "enum": [token]}},
            "required": ["word"],
            "additionalProperties": False,
        }
        messages = [{"role": "user", "content": "Say hello in one short sentence."}]
        server = self._settings.server
        try:
            try:
                completion = self._ask(messages, 64, {"response_format": _wrap_schema("probe", schema)})
            except openai.BadRequestError:
                self._ask(messages, 64, {})  # is it the schema that it refuses, or whatever is asked?
                return {"takes_schema": False, "is_constrained": False}
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code not in (408, 409, 429):
                raise ConfigError(
                    f"extract.server = {server}: HTTP status {error.status_code}; check the address (it ends with /v1 mostly), "
                    f"extract.model = {self._settings.model}, and OPENAI_API_KEY"
                ) from None
            raise RunError(f"the server at {server} refuses: HTTP status {error.status_code}; see its own log") from None
        except (openai.APIError, httpx2.TransportError, TimeoutError) as error:
            raise RunError(
                f"the server at {server} does not answer ({type(error).__name__}): start it, then run again"
            ) from None
        except (ValidationError, ValueError):
            raise ConfigError(f"extract.server = {server} does not speak OpenAI's protocol; check the address") from None
        try:
            document = json.loads(completion.choices[0].message.content or "")
        except (ValueError, IndexError, RecursionError):
            document = None
        return {"takes_schema": True, "is_constrained": document == {"word": token}}


def _is_this_machine(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _wrap_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def _take_reply(recording_id: str, completion: ChatCompletion) -> Reply:
    choices = completion.choices
    if not choices or not choices[0].message.content:
        raise AnswerInvalid(recording_id, "the answer is empty")
    usage = completion.usage
    if choices[0].finish_reason == "length":
        raise AnswerCutOff(recording_id, f"the answer ended after {usage.completion_tokens if usage else 'its most'} tokens")
    return Reply(choices[0].message.content, usage.prompt_tokens if usage else None, usage.completion_tokens if usage else None)
