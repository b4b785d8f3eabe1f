"""A language model in this process: transformers runs it, and llguidance binds each token to the schema of the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import llguidance.hf
import llguidance.torch
import torch
from llguidance import LLMatcher
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, StoppingCriteria

from dictalake.config.extraction import Extract
from dictalake.errors import AnswerCutOff, ConfigError, ModelTimeout, TranscriptionError
from dictalake.extraction.model import Reply, Request
from dictalake.extraction.model_files import find_folder
from dictalake.extraction.prompt import SCHEMA_TEXT

_DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}
_BITS = [1 << bit for bit in range(31)] + [-(1 << 31)]  # of a signed 32-bit number


class LocalModel:
    """Answers in batches of ``extract.batch``, the longest texts first."""

    is_constrained: bool | None = True

    def __init__(self, settings: Extract) -> None:
        """Raises ConfigError where the files are no language model of transformers."""
        self._settings = settings
        folder = find_folder(settings)
        is_cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if is_cuda else "cpu")
        try:
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left", **options)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=_DTYPES[settings.dtype], use_safetensors=True, **options
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"extract.model: {folder.name} is no language model of transformers ({type(error).__name__})"
            ) from None
        if self.tokenizer.chat_template is None:
            raise ConfigError(f"extract.model: {folder.name} has no chat template; take a model that follows instructions")
        self.model: Any = model.to(self._device).eval()
        ends = self.model.generation_config.eos_token_id
        self._ends = (
            list(ends) if isinstance(ends, list | tuple) else [ends if ends is not None else self.tokenizer.eos_token_id]
        )
        self._vocabulary = int(self.model.config.get_text_config().vocab_size)
        tokenizer: Any = self.tokenizer
        self._tokens = llguidance.hf.from_tokenizer(tokenizer, n_vocab=self._vocabulary, eos_token=self._ends)
        self._grammar = make_grammar(SCHEMA_TEXT)
        self._lock = threading.Lock()

    def probe(self) -> dict[str, bool | None]:
        return {"takes_schema": True, "is_constrained": True}

    def close(self) -> None:
        self.model = None

    def answer(self, requests: Sequence[Request]) -> list[Reply | TranscriptionError]:
        prompts = [
            self.tokenizer.apply_chat_template(list(one.messages), add_generation_prompt=True, tokenize=False)
            for one in requests
        ]
        replies: dict[int, Reply | TranscriptionError] = {}
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        step = self._settings.batch
        with self._lock:
            for first in range(0, len(order), step):
                places = order[first : first + step]
                names = [requests[place].recording_id for place in places]
                answers = self.generate([prompts[place] for place in places], names, [self._grammar] * len(places))
                replies |= dict(zip(places, answers, strict=True))
        return [replies[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], names: Sequence[str], grammars: Sequence[str], max_tokens: int | None = None
    ) -> list[Reply | TranscriptionError]:
        """One batch; each answer is bound to its own grammar."""
        batch = self.tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        matchers = [LLMatcher(self._tokens, grammar) for grammar in grammars]
        deadline = _Deadline(self._settings.request_s)
        most = max_tokens or self._settings.max_tokens
        written = self.model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=most,
            logits_processor=[GrammarProcessor(matchers, self._vocabulary, self._ends[0])],
            stopping_criteria=[deadline],
            pad_token_id=self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._ends[0],
        )[:, batch["input_ids"].shape[1] :]
        read = batch["attention_mask"].sum(dim=1).tolist()
        return [
            self._take_reply(name, tokens, int(length), most, is_late=deadline.is_over)
            for name, tokens, length in zip(names, written.tolist(), read, strict=True)
        ]

    def _take_reply(self, name: str, tokens: list[int], read: int, most: int, *, is_late: bool) -> Reply | TranscriptionError:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        if end is None and is_late:
            return ModelTimeout(name, f"the answer took longer than extract.request_s = {self._settings.request_s:g}")
        if end is None:
            return AnswerCutOff(name, f"the answer ended after {most} tokens")
        return Reply(self.tokenizer.decode(tokens[:end], skip_special_tokens=True), read, end)


def make_grammar(schema: str) -> str:
    """The grammar of JSON of ``schema`` (JSON too) without white space, which a model may write without end."""
    return str(LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False}))


class GrammarProcessor(LogitsProcessor):
    """Allows each row of a batch only those next tokens with which its matcher can reach an end.

    Where only one text can follow, as a key and its colon, the tokens are those that the tokenizer makes of it.
    """

    def __init__(self, matchers: Sequence[LLMatcher], vocabulary: int, end: int) -> None:
        self._matchers, self._end = matchers, end
        self._mask = llguidance.torch.allocate_token_bitmask(len(matchers), vocabulary)
        self._is_begun = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        last = input_ids[:, -1].tolist()
        over = []
        for row, matcher in enumerate(self._matchers):
            if self._is_begun and not matcher.is_stopped():
                matcher.consume_token(last[row])
            if matcher.is_stopped():
                over.append(row)
            elif forced := matcher.compute_ff_tokens():
                self._mask[row] = 0
                self._mask[row, forced[0] // 32] = _BITS[forced[0] % 32]
            else:
                llguidance.torch.fill_next_token_bitmask(matcher, self._mask, row)
        self._is_begun = True
        bits = self._mask.to(scores.device).unsqueeze(-1) >> torch.arange(32, dtype=torch.int32, device=scores.device)
        allowed = (bits & 1).bool().flatten(1)[:, : scores.shape[-1]]
        if over:
            allowed[over] = False
            allowed[over, self._end] = True
        return scores.masked_fill(~allowed, -torch.inf)


class _Deadline(StoppingCriteria):
    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self.is_over = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> Any:
        self.is_over = time.monotonic() > self._ends_at
        return torch.full((input_ids.shape[0],), self.is_over, dtype=torch.bool, device=input_ids.device)
