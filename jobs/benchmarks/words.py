"""Word errors of our search and of pyctcdecode's on the same emissions, in pairs, and hotwords found and invented.

    python -m jobs.benchmarks words --set held-out=evaluation-set/held-out/manifest.csv --hotwords terms.txt --out FILE.json
    python -m jobs.benchmarks words --set long=long/manifest.csv --emissions kept     keeps the emissions, and takes them again

Each manifest has a column `reference`. The acoustic model and the language model are the demo's. The normaliser is the one for
MedASR, and the interval of a difference is that of `dictalake evaluate`: a permutation test in pairs. A hotword counts as found
as often as both the reference and the text have it, and as invented as often as the text has it more often.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.cli.tables import Column, print_table
from dictalake.config.load import load_config
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.hotwords import Hotword, find_hotwords
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.evaluation.bootstrap import bootstrap_rate, compare_rates
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.systems import read_references
from dictalake.evaluation.word_errors import count_errors
from dictalake.records import Emissions
from dictalake.workflow.columns import read_emissions, recordings_to_table
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from jobs.benchmarks.__main__ import write_result

_BLOCK = 16
Rows = list[tuple[str, Emissions]]  # reference and emissions of the first channel


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks words", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", dest="sets", action="append", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--hotwords", help="terms, one a line")
    parser.add_argument("--emissions", type=Path, help="a folder that keeps the emissions of each set")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    config = load_config("demo", [], environment={})
    vocabulary, decoding = read_vocabulary(find_checkpoint(config.acoustic)).vocabulary, locate_lm(config).decoding
    result: dict[str, Any] = {"benchmark": "words", "sets": {}}
    for name, _, manifest in (given.partition("=") for given in options.sets):
        rows = _read_or_emit(name, manifest, vocabulary, options.emissions)
        result["sets"][name] = compare(decoding, vocabulary, rows, options.hotwords)
        _show(name, result["sets"][name])
    write_result(result, options.out)
    return 0


def _read_or_emit(name: str, manifest: str, vocabulary: Vocabulary, folder: Path | None) -> Rows:
    kept = None if folder is None else folder / f"{name}.pickle"
    if kept is not None and kept.exists():
        rows: Rows = pickle.loads(kept.read_bytes())
        return rows
    rows = _emit(manifest, vocabulary)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(rows))
    return rows


def _emit(manifest: str, vocabulary: Vocabulary) -> Rows:
    config = load_config("demo", [("archive.manifest", manifest)], environment={})
    load, emit, rows = Load(config), Emit(config, vocabulary, 2), []
    recordings = read_references(config.archive)
    for start in range(0, len(recordings), _BLOCK):
        block = recordings[start : start + _BLOCK]
        emitted = emit(pa.concat_tables(list(load(recordings_to_table(block)))))
        assert emitted["error"].null_count == len(block), "a recording cannot be read"
        rows += [(one.metadata["reference"], read_emissions(emitted, row)[0]) for row, one in enumerate(block)]
    return rows


def compare(decoding: Decoding, vocabulary: Vocabulary, rows: Rows, hotwords: str | None) -> dict[str, Any]:
    """The figures of one set: each arm, and ours against pyctcdecode's."""
    arms: dict[str, dict[str, Any]] = {"greedy": {"kind": "greedy"}, "greedy with LM": {"beam_width": 1}}
    arms |= {engine: {"engine": engine} for engine in ("native", "pyctcdecode")}
    if hotwords is not None:
        arms |= {f"{engine}, hotwords": {"engine": engine, "hotwords": hotwords} for engine in ("native", "pyctcdecode")}
    references = [reference for reference, _ in rows]
    texts = {name: _decode(decoding, keys, vocabulary, rows) for name, keys in arms.items()}
    words = np.array([len(normalise_medasr(reference).split()) for reference in references])
    errors = {name: np.array(list(map(_count, references, of_arm))) for name, of_arm in texts.items()}
    result: dict[str, Any] = {"recordings": len(rows), "words": int(words.sum()), "arms": {}, "native less pyctcdecode": {}}
    for name, of_arm in texts.items():
        rate = bootstrap_rate(errors[name], words)
        result["arms"][name] = {"wer": _percent(rate.value), "low": _percent(rate.low), "high": _percent(rate.high)}
        if hotwords is not None:
            result["arms"][name] |= count_hotwords(references, of_arm, Path(hotwords).read_text(encoding="utf-8").split("\n"))
    for end in [""] if hotwords is None else ["", ", hotwords"]:
        mine, theirs = f"native{end}", f"pyctcdecode{end}"
        compared = compare_rates(errors[theirs], errors[mine], words)
        result["native less pyctcdecode"][end.removeprefix(", ") or "no hotwords"] = {
            "wer": _percent(compared.delta.value),
            "low": _percent(compared.delta.low),
            "high": _percent(compared.delta.high),
            "p_value": round(compared.p_value, 4),
            "same_text": sum(one == other for one, other in zip(texts[mine], texts[theirs], strict=True)),
            "better": int((errors[mine] < errors[theirs]).sum()),
            "worse": int((errors[mine] > errors[theirs]).sum()),
        }
    return result


def _decode(decoding: Decoding, keys: dict[str, Any], vocabulary: Vocabulary, rows: Rows) -> list[str]:
    decoder = open_decoder(Decoding.model_validate({**decoding.model_dump(), **keys}), vocabulary)
    return [vocabulary.text_of(piece.text for piece in decoder.decode(channel, 1)[0].pieces) for _, channel in rows]


def _count(reference: str, text: str) -> int:
    errors = count_errors([(normalise_medasr(reference), normalise_medasr(text))])
    return errors.substitutions + errors.deletions + errors.insertions


def count_hotwords(references: Sequence[str], texts: Sequence[str], terms: Sequence[str]) -> dict[str, int]:
    """How often the references have the terms, and how often the texts have them there and elsewhere."""
    hotwords = [Hotword(term) for term in terms if term]
    said = found = invented = 0
    for reference, text in zip(references, texts, strict=True):
        wanted, heard = (Counter(find_hotwords(hotwords, one)) for one in (reference, text))
        said += wanted.total()
        found += (wanted & heard).total()
        invented += (heard - wanted).total()
    return {"said": said, "found": found, "invented": invented}


def _percent(rate: float) -> float:
    return round(100 * rate, 3)


def _show(name: str, result: dict[str, Any]) -> None:
    print(f"{name}: {result['recordings']} recordings, {result['words']} words")
    rows = [
        (arm, *(str(figures.get(key, "")) for key in ("wer", "low", "high", "found", "invented")))
        for arm, figures in result["arms"].items()
    ]
    columns = [Column(title, is_number=True) for title in ("word errors, %", "low", "high", "hotwords found", "invented")]
    print_table(["arm", *columns], rows)
    for arm, figures in result["native less pyctcdecode"].items():
        print(f"native less pyctcdecode, {arm}: {figures}")


if __name__ == "__main__":
    sys.exit(main())
