"""The section ``extract``: how a language model reads transcripts."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveInt, field_validator

from dictalake.config.section import Section


class Extract(Section):
    """The language model that turns transcripts into findings, drugs, values and follow-ups (`dictalake extract`)."""

    kind: Literal["openai", "vllm", "transformers"] = Field(
        "openai",
        description="openai: a server that speaks OpenAI's protocol (vLLM, LM Studio, Vertex); vllm: Ray Data's vLLM on your "
        "GPUs; transformers: in the workers' own processes",
    )
    model: str = Field(
        "google/medgemma-1.5-4b-it", description="the server's name of the model; else a folder or Hugging Face id"
    )
    revision: str | None = Field(
        None, description="commit of the Hugging Face repository; pin it, also where a server has the model"
    )
    server: str | None = Field(
        None, description="where the server answers, with its version: http://127.0.0.1:8000/v1; the key is in OPENAI_API_KEY"
    )
    concurrency: PositiveInt = Field(16, description="requests to the server at the same time")
    request_s: float = Field(300.0, gt=0, description="seconds for one answer; a longer one is `model_timeout`")
    tries: PositiveInt = Field(4, description="tries of a request that the server refuses for the moment or does not answer")
    max_tokens: int = Field(4096, ge=64, description="most tokens of an answer; a longer one is `answer_cut_off`")
    part_chars: int = Field(
        12_000, ge=500, description="characters that the model reads at once; a longer text is read in parts that overlap"
    )
    batch: PositiveInt = Field(8, description="texts in one batch of the model (transformers, vllm)")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device of the model (transformers); auto takes a GPU")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: as its files say (transformers, vllm)")
    actors: PositiveInt = Field(1, description="copies of the model (transformers, vllm)")
    memory_mb: float = Field(1000.0, gt=0, description="memory that the cluster reserves for one copy, without the GPU's")
    block_rows: PositiveInt = Field(16, description="transcripts that travel and are committed together")

    @field_validator("server")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be the http or https address of a server, as http://127.0.0.1:8000/v1")
        if "@" in parts.netloc or parts.query:  # the address is written into run records and messages
            raise ValueError("must hold no user, password or key: put the key into OPENAI_API_KEY")
        return value
