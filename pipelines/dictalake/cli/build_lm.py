"""Builds the n-gram language model that beam search fuses: estimates, mixes, prunes, measures, and writes it."""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kenlm
from transformers import AutoConfig, AutoTokenizer

from dictalake.cli.tables import Column, print_table
from dictalake.config.locations import resolve
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.training.arpa import BEGIN, END, UNKNOWN, read_arpa, read_head, write_arpa
from dictalake.training.interpolation import alone, best_base_weight, interpolate, token_probabilities
from dictalake.training.kenlm_tools import KenlmTools, default_cache, find_or_build_tools
from dictalake.training.lm import (
    HIGHEST_ORDER,
    HeldOut,
    LmPlan,
    estimate_arpa,
    read_dictations,
    unlike,
    write_binary,
    write_pieces,
)
from dictalake.training.perplexity import Perplexity, measure
from dictalake.training.pruning import prune

AUTO = "auto"


@dataclass(frozen=True)
class Sample:
    """Text that no model is made from: lines of pieces, and how many words they spell."""

    lines: tuple[str, ...]
    words: int


@dataclass(frozen=True)
class Built:
    """A model on the way: its ARPA file, and the binary as the decoder will read it."""

    name: str
    arpa: Path
    binary: Path


@dataclass(frozen=True)
class Facts:
    """What is reported of a model. ``known_pieces`` of the acoustic model's ``all_pieces`` are in it."""

    name: str
    ngrams: list[int]
    known_pieces: int
    all_pieces: int
    size_bytes: int
    held_out: Perplexity | None

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.held_out is not None:
            found["held_out"] |= {
                "perplexity_per_piece": self.held_out.per_piece,
                "perplexity_per_known_piece": self.held_out.per_known_piece,
                "perplexity_per_word": self.held_out.per_word,
            }
        return found


@dataclass(frozen=True)
class Workshop:
    """What every step needs: options, tools, the acoustic model's pieces, and a folder for what is only on the way."""

    options: argparse.Namespace
    plan: LmPlan
    tools: KenlmTools
    tokenizer: Any
    vocabulary: Vocabulary
    folder: Path

    def corpus(self, dictations: Iterable[str], option: str, held_out: HeldOut) -> tuple[Path, int]:
        """Writes the pieces of ``dictations`` and says how many; gives the file and the words in it."""
        path = self.folder / f"{option.strip('-')}.txt"
        counts = write_pieces(dictations, self.tokenizer, self.vocabulary, held_out, path, option)
        name = "corpus" if option == "--text" else option.strip("-")
        print(
            f"{name}: {counts.dictations} dictations, {counts.pieces} pieces ({counts.unknown_pieces} without a piece left out)"
        )
        if counts.excluded_dictations or counts.excluded_sentences or (option == "--text" and self.options.exclude):
            print(f"held out: {counts.excluded_dictations} dictations and {counts.excluded_sentences} sentences left out")
        return path, counts.words

    def read(self, paths: Iterable[Path]) -> Iterator[str]:
        return itertools.chain.from_iterable(read_dictations(path, self.options.column) for path in paths)

    def sample(self, dictations: Iterable[str], option: str) -> Sample:
        path, words = self.corpus(dictations, option, HeldOut())
        return Sample(tuple(path.read_text(encoding="utf-8").splitlines()), words)

    def estimate(self, name: str, paths: Iterable[Path], option: str, held_out: HeldOut) -> Built:
        corpus, _ = self.corpus(self.read(paths), option, held_out)
        arpa = self.folder / f"{name}.arpa"
        estimate_arpa(corpus, arpa, self.plan, self.tools)
        return self.finish(name, arpa)

    def finish(self, name: str, arpa: Path) -> Built:
        binary = self.folder / f"{name}.kenlm"
        write_binary(arpa, binary, self.plan, self.tools)
        return Built(name, arpa, binary)


def build(options: argparse.Namespace) -> int:
    """Writes the model to ``options.out``. Raises ConfigError, RunError."""
    plan = LmPlan(options.order, tuple(options.prune), options.quantize, options.memory)
    _check(options)
    tools = find_or_build_tools(options.kenlm_bin, options.cache or default_cache(), print)
    tokenizer, vocabulary = _load_tokenizer(options)
    with tempfile.TemporaryDirectory(prefix="dictalake-lm-") as folder:
        shop = Workshop(options, plan, tools, tokenizer, vocabulary, Path(folder))
        kept_out = HeldOut(shop.read([*options.exclude, *options.held_out, *options.dev]))
        dev = shop.sample(shop.read(options.dev), "--dev") if options.dev else None
        apart = unlike(shop.read(options.held_out), HeldOut(shop.read(options.dev)))
        held_out = shop.sample(apart, "--held-out") if options.held_out else None
        models = [shop.estimate("text", options.text, "--text", kept_out)]
        weight = None
        if options.base or options.base_text:
            models.append(_base(shop, kept_out))
            weight = _share_of_base(options.base_weight, models[0], models[1], dev)
            mixed = shop.folder / "interpolated.arpa"
            write_arpa(interpolate(read_arpa(models[0].arpa), read_arpa(models[1].arpa), weight), mixed)
            models.append(shop.finish("interpolated", mixed))
        if options.prune_threshold is not None:
            pruned = shop.folder / "pruned.arpa"
            write_arpa(prune(alone(read_arpa(models[-1].arpa)), options.prune_threshold), pruned)
            models.append(shop.finish("pruned", pruned))
        facts = [_facts(model, vocabulary, held_out) for model in models]
        _deliver(models[-1], options)
    _show(facts, options, weight)
    return 0


def _check(options: argparse.Namespace) -> None:
    """What can be known to fail is refused before hours of counting."""
    has_base = options.base is not None or bool(options.base_text)
    if options.base is not None and options.base_text:
        raise ConfigError("--base and --base-text: give one of the two")
    if options.base_weight != AUTO and not 0 < options.base_weight < 1:
        raise ConfigError(f"--base-weight {options.base_weight:g}: must be above 0 and below 1, or auto")
    if has_base and options.base_weight == AUTO and not options.dev:
        raise ConfigError("--base-weight auto: finds the weight on text given with --dev; give that, or a number such as 0.5")
    if options.dev and not (has_base and options.base_weight == AUTO):
        raise ConfigError("--dev: is only for --base-weight auto with --base or --base-text; did you mean --held-out?")
    if options.prune_threshold is not None and not 0 < options.prune_threshold < 1:
        raise ConfigError(
            f"--prune-threshold {options.prune_threshold:g}: must be above 0 and below 1 (1e-8 is mild, 1e-6 strong)"
        )
    if options.base is not None:
        read_head(Path(resolve(str(options.base))))


def _load_tokenizer(options: argparse.Namespace) -> tuple[Any, Vocabulary]:
    model = resolve(options.model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=options.revision)
        vocabulary_size = _vocabulary_size(model, options.revision) or len(tokenizer)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model {options.model}: no tokenizer can be loaded from there ({type(error).__name__})") from error
    return tokenizer, Vocabulary.from_tokenizer(tokenizer, vocabulary_size)


def _vocabulary_size(model: str, revision: str | None) -> int | None:
    """Width of the model's CTC head; None for a folder with a tokenizer alone."""
    if Path(model).is_dir() and not (Path(model) / "config.json").exists():
        return None
    size = AutoConfig.from_pretrained(model, revision=revision).vocab_size
    return int(size) if size else None


def _base(shop: Workshop, held_out: HeldOut) -> Built:
    if shop.options.base_text:
        return shop.estimate("base", shop.options.base_text, "--base-text", held_out)
    given, plain = Path(resolve(str(shop.options.base))), shop.folder / "base.arpa"
    counts, words = read_head(given)
    own = set(shop.vocabulary.lm_words().values())
    foreign = set(words) - own - {BEGIN, END, UNKNOWN, UNKNOWN.upper()}
    if 2 * len(foreign) > len(words):
        raise ConfigError(
            f"--base {given}: {len(foreign)} of its {len(words)} words are no pieces of --model; it must be made over the same "
            "pieces, in the form of build-lm"
        )
    if len(counts) > HIGHEST_ORDER:
        raise ConfigError(f"--base {given}: is a {len(counts)}-gram model; the decoders read {HIGHEST_ORDER}-grams at most")
    print(f"base: {sum(counts)} n-grams, {len(words)} words, {len(foreign)} of them no pieces of the model")
    packed = given.read_bytes()[:2] == b"\x1f\x8b"
    with gzip.open(given) if packed else given.open("rb") as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target)
    return shop.finish("base", plain)


def _share_of_base(given: float | str, text: Built, base: Built, dev: Sample | None) -> float:
    if isinstance(given, float) or dev is None:
        return float(given)
    of_text, of_base = (token_probabilities(kenlm.Model(str(model.binary)), dev.lines) for model in (text, base))
    return best_base_weight(of_text, of_base)


def _facts(model: Built, vocabulary: Vocabulary, held_out: Sample | None) -> Facts:
    counts, words = read_head(model.arpa)
    pieces = set(vocabulary.lm_words().values())
    measured = measure(kenlm.Model(str(model.binary)), held_out.lines, held_out.words) if held_out else None
    return Facts(model.name, counts, len(pieces & set(words)), len(pieces), model.binary.stat().st_size, measured)


def _deliver(model: Built, options: argparse.Namespace) -> None:
    """Puts the last model where it is wanted, whole or not at all."""
    wanted = [(model.binary, options.out, False)]
    if options.arpa is not None:
        wanted.append((model.arpa, options.arpa, options.arpa.suffix == ".gz"))
    for source, target, pack in wanted:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with source.open("rb") as read, gzip.open(part, "wb") if pack else part.open("wb") as write:
            shutil.copyfileobj(read, write)
        part.replace(target)


def _show(facts: list[Facts], options: argparse.Namespace, weight: float | None) -> None:
    last = facts[-1]
    if weight is not None:
        print(f"base weight: {weight:.4f} ({'found on --dev' if options.base_weight == AUTO else 'as given'})")
    print(f"vocabulary: {last.known_pieces} of the model's {last.all_pieces} pieces are known")
    if last.held_out is not None:
        title = f"held-out text: {last.held_out.lines} dictations, {last.held_out.words} words, {last.held_out.pieces} pieces"
        _print_perplexities(facts, title)
    print(f"{options.out}: {len(last.ngrams)}-gram, {format_size(last.size_bytes)}")
    if options.report is not None:
        found = {
            "base_weight": weight,
            "base_weight_found_on_dev": weight is not None and options.base_weight == AUTO,
            "prune_threshold": options.prune_threshold,
            "models": [model.as_json() for model in facts],
        }
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def format_size(size_bytes: int) -> str:
    """In the unit in which the number says something."""
    if size_bytes < 1e6:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.2f} GB"


def _print_perplexities(facts: list[Facts], title: str) -> None:
    """They count the ends of dictations; ``known piece`` leaves out pieces that the model does not know."""
    numbers = ("n-grams", "size", "a piece", "a known piece", "a word", "unknown")
    rows = []
    for model in facts:
        if (found := model.held_out) is not None:
            perplexities = [f"{found.per_piece:.2f}", f"{found.per_known_piece:.2f}", f"{found.per_word:,.0f}"]
            size = format_size(model.size_bytes)
            rows.append([model.name, f"{sum(model.ngrams):,}", size, *perplexities, str(found.unknown)])
    print_table(["model", *(Column(name, is_number=True) for name in numbers)], rows, title=title)
    print("perplexity, ends of dictations counted; compare words across tokenizers")
