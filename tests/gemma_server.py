"""Gemma 3's architecture with tiny random weights, as a folder and behind a server that enforces JSON schemas.

    python -m tests.gemma_server --transcripts 40 --out infra/benchmarks/extract_gemma.json

The server binds each answer to the schema that the client sent, by the same library as ``extract.kind: transformers``. Random
weights would quote nothing that was said, so it narrows the schema: each quote is a sentence of the transcript, and numbers are
those of the sentence. Which sentences, and all else, the model chooses. So items are stored, by the whole path over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from dictalake.config.load import load_config
from dictalake.errors import TranscriptionError
from dictalake.extraction.answer_schema import KINDS
from dictalake.extraction.local_model import LocalModel, make_grammar
from dictalake.extraction.prompt import SCHEMA_TEXT, make_messages
from tests.extracted_lake import Run, add_dictations, make_config, make_dictation, select
from tests.model_server import complete, read_transcript, serving

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_SPECIAL = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
_ITEMS = 3
DICTATION = (
    "The heart is enlarged. No pleural effusion. There is a nodule of {0} mm. She takes metoprolol {1} mg twice daily. "
    "Potassium {2}. Creatinine {3}. Repeat CT in {4} months. Follow up with cardiology. The liver is normal."
)


def make_gemma(folder: Path, texts: Iterable[str]) -> Path:
    """Writes a model that transformers opens as any other. Its tokenizer knows ``texts``, the schema, and answers of it, so
    that a prompt and an answer are short."""
    keys = [f'"{name}":"' for kind in KINDS.values() for name in kind.model_fields] + [
        f'"{kind}":[{{"quote":"' for kind in KINDS
    ]
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        max_token_length=24,
        vocab_size=1500,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, SCHEMA_TEXT, *keys * 50], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", chat_template=_TEMPLATE
    )
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    ends = [fast.convert_tokens_to_ids("<eos>"), fast.convert_tokens_to_ids("<end_of_turn>")]
    config = Gemma3TextConfig(
        vocab_size=len(fast),
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        sliding_window=256,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
        eos_token_id=ends[0],
        **sizes,
    )
    model = Gemma3ForCausalLM(config)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    return folder


def narrow(schema: dict[str, Any], transcript: str) -> dict[str, Any]:
    """``schema`` with quotes from the transcript, numbers, units, names and negation from the quote; sides are free."""
    sentences = [one.strip() for one in re.split(r"(?<=[.])\s+", transcript) if one.strip()]
    properties = {}
    for kind, items in schema["properties"].items():
        item = schema["$defs"][items["items"]["$ref"].rpartition("/")[2]]
        groups = [sentences[place::_ITEMS] for place in range(min(_ITEMS, len(sentences)))]
        chosen = [{"anyOf": [_narrow_item(item, sentence) for sentence in group]} for group in groups]
        properties[kind] = {"type": "array", "prefixItems": chosen, "items": False, "minItems": len(chosen)}
    return {**schema, "properties": properties, "$defs": {}}


def _narrow_item(item: dict[str, Any], sentence: str) -> dict[str, Any]:
    numbers = [float(one) for one in re.findall(r"\d+(?:\.\d+)?", sentence)]
    properties: dict[str, Any] = {}
    for name, kind in item["properties"].items():
        allowed = json.dumps(kind)
        if name == "quote":
            properties[name] = {"const": sentence}
        elif name == "value":
            properties[name] = {"enum": [f"{number:g}" for number in numbers] or re.findall(r"[a-z]{4,}", sentence.lower())[:1]}
        elif name == "negated":
            properties[name] = {"const": sentence.startswith("No ")}
        elif name == "certainty":
            properties[name] = {"const": "certain"}
        elif name == "unit":
            properties[name] = {"enum": re.findall(r"\d (mm|mg)", sentence) or [None]}
        elif '"number"' in allowed:
            properties[name] = {"enum": [None, *numbers]}
        elif '"enum"' in allowed or '"boolean"' in allowed:
            properties[name] = kind
        else:
            properties[name] = {"enum": re.findall(r"[a-z]{4,}", sentence.lower())[:4] or ["none"]}
    return {**item, "properties": properties}


class GemmaServer:
    """OpenAI's protocol over a folder with a model of transformers. One answer at a time."""

    def __init__(self, folder: Path, max_tokens: int = 4096) -> None:
        settings = load_config("extract-transformers", [("extract.model", str(folder)), ("extract.device", "cpu")], {}).extract
        self.model, self.max_tokens, self.requests, self._lock = LocalModel(settings), max_tokens, 0, asyncio.Lock()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        async with self._lock:
            return await asyncio.to_thread(self._answer, body)

    def _answer(self, body: dict[str, Any]) -> Response:
        self.requests += 1
        schema, transcript = body["response_format"]["json_schema"]["schema"], read_transcript(body["messages"])
        schema = schema if transcript is None else narrow(schema, transcript)
        prompt = self.model.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
        grammar = make_grammar(json.dumps(schema))
        [reply] = self.model.generate([prompt], ["request"], [grammar], min(self.max_tokens, body["max_tokens"]))
        if isinstance(reply, TranscriptionError):
            return JSONResponse({"error": {"message": reply.reason}}, 500)
        return complete(reply.text, tokens=reply.answer_tokens)


def make_texts(count: int) -> list[str]:
    return [DICTATION.format(4 + n, 25 + n, 3 + n / 10, 1 + n / 10, 2 + n % 9) for n in range(count)]


def extract_by_gemma(folder: Path, transcripts: int) -> dict[str, Any]:
    """Items by kind that are in the lake after an extraction by the server, and how long it took."""
    texts = make_texts(transcripts)
    model = make_gemma(folder / "gemma", [make_messages(text)[0]["content"] for text in texts[:20]])
    server = GemmaServer(model)
    lake = add_dictations(folder / "lake", *(make_dictation(f"g{n:03}", text) for n, text in enumerate(texts)))
    with serving(server.app) as address:
        began = time.monotonic()
        run = Run(make_config(lake, address, concurrency=4))
        rows = run.ask().commit()
        seconds = time.monotonic() - began
    [items] = select(
        lake,
        "SELECT sum(len(findings)), sum(len(medications)), sum(len(lab_values)), sum(len(follow_ups)), sum(len(impressions)) "
        "FROM finding_rows WHERE status = 'ok'",
    )
    dropped = select(lake, "SELECT DISTINCT status, dropped, error.reason FROM finding_rows ORDER BY ALL")
    kinds = ("findings", "medications", "lab_values", "follow_ups", "impressions")
    return {
        "transcripts": rows,
        **{kind: int(count or 0) for kind, count in zip(kinds, items, strict=True)},
        "outcomes": [str(one) for one in dropped],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = extract_by_gemma(Path(name), arguments.transcripts)
    print(json.dumps(found, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
