"""Searches the decoder's settings on labelled recordings, fits the words' confidence, and writes what was found."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from markupsafe import Markup
from rich.console import Console

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.cli.tables import Column, print_json, print_lines, print_table
from dictalake.config.sections import Confidence, Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.evaluation.calibration import apply_confidence, area_under_roc, expected_calibration_error, fit_confidence
from dictalake.evaluation.emission_cache import cache_emissions, read_cache
from dictalake.evaluation.normalise import NORMALISERS
from dictalake.evaluation.systems import read_references
from dictalake.evaluation.tuning import Trial, check_apart, open_bench, search
from dictalake.evaluation.tuning_page import Calibrated, draw_reliability, draw_routing, draw_surface, render_page, route
from dictalake.evaluation.word_errors import count_errors
from dictalake.records import FrameGrid, Recording

LM_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 0.0)
WORD_SCORES = (1.5, 0.5, 0.0, 2.5, 3.5)
BEAM_WIDTHS = (8, 4, 16, 32)
HOTWORD_WEIGHTS = (0.35, 0.7, 1.0, 1.5, 2.5)
_SHOWN = {
    "wer_before": "WER before, %",
    "wer_after": "WER after, %",
    "ece_before": "calibration error before",
    "ece_after": "calibration error after",
    "auc": "area under ROC",
    "errors_in_least_sure_5_percent": "errors in the least sure 5 %, %",
}


def tune(given: Config, arguments: argparse.Namespace) -> int:
    """Writes tuned.yaml, tuning.json, trials.parquet and tuning.html into the folder ``arguments.out``; the exit code."""
    config = locate_lm(given)
    if config.decoding.kind != "beam":
        raise ConfigError(f"decoding.kind = {config.decoding.kind}: only beam has settings to tune")
    from dictalake.decoding.hotwords import warn_of_hotwords
    from dictalake.logs import shown_on
    from dictalake.workflow.identity import read_vocabulary

    console = Console(stderr=True)
    checkpoint = find_checkpoint(config.acoustic)
    vocabulary, grid = read_vocabulary(checkpoint)
    warn_of_hotwords(config.decoding, vocabulary, shown_on(console))
    sha256 = checkpoint.identity.sha256
    configs = {"dev": config}
    if arguments.held_out:
        archive = config.archive.model_copy(update={"manifest": arguments.held_out})
        configs["held-out"] = config.model_copy(update={"archive": archive})
    recordings = {name: read_references(of_set.archive) for name, of_set in configs.items()}
    if arguments.held_out and (warning := check_apart(recordings["dev"], recordings["held-out"])):
        print_lines(console, warning)
    caches = {
        name: _cache(of_set, recordings[name], vocabulary, arguments.out, sha256, console) for name, of_set in configs.items()
    }

    trials = _search(caches["dev"], config, vocabulary, grid, arguments, console)
    best = min(trials, key=lambda trial: trial.errors.rate)
    calibration = fit_confidence(best.evidence, best.is_right)
    sets = {"dev": (trials[0], best)}
    if "held-out" in caches:
        with open_bench(caches["held-out"], config, vocabulary, grid, arguments.processes) as bench:
            sets["held-out"] = (
                bench.try_settings(trials[0].settings, arguments.normaliser),
                bench.try_settings(best.settings, arguments.normaliser),
            )
    _write(arguments.out, given, trials, best, calibration, sets, arguments.format)
    return 0


def _cache(
    config: Config, recordings: list[Recording], vocabulary: Vocabulary, folder: Path, sha256: str, console: Console
) -> Path:
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        print_lines(console, f"emissions: {done} of {len(recordings)} recordings")

    path = cache_emissions(
        config, vocabulary, recordings, folder, threads=os.cpu_count() or 1, model_sha256=sha256, on_done=tell
    )
    failed = [heard.reason for heard in read_cache(path) if heard.reason]
    if failed:
        counts = ", ".join(f"{failed.count(reason)} {reason}" for reason in sorted(set(failed)))
        print_lines(console, f"left out: {len(failed)} recordings that failed ({counts})")
    if not any(heard.reason is None and heard.reference for heard in read_cache(path)):
        raise ConfigError(f"{config.archive.manifest}: no recording that can be read has a reference")
    return path


def _search(
    cache: Path, config: Config, vocabulary: Vocabulary, grid: FrameGrid, arguments: argparse.Namespace, console: Console
) -> list[Trial]:
    """All trials, the configured settings first."""
    trials: list[Trial] = []
    axes: list[dict[str, Sequence[Any]]] = [{"lm_weight": [config.decoding.lm_weight]}]
    if config.decoding.lm is not None:
        axes.append({"lm_weight": LM_WEIGHTS, "word_score": WORD_SCORES})
    axes.append({"beam_width": BEAM_WIDTHS})
    if config.decoding.hotwords is not None:
        axes.append({"hotword_weight": HOTWORD_WEIGHTS})

    def tell(trial: Trial) -> None:
        trials.append(trial)
        settings = ", ".join(f"{key} {value:g}" for key, value in trial.settings.items())
        print_lines(console, f"trial {len(trials)}: WER {100 * trial.errors.rate:.2f} % with {settings}")

    with open_bench(cache, config, vocabulary, grid, arguments.processes) as bench:
        search(bench, axes, arguments.normaliser, tell)
    return trials


def _write(
    out: Path,
    config: Config,
    trials: Sequence[Trial],
    best: Trial,
    calibration: Confidence,
    sets: dict[str, tuple[Trial, Trial]],
    form: str,
) -> None:
    # All that was measured, so that the file alone gives it again; where the archive and the lake are is another matter.
    kept = config.model_dump(mode="json", exclude_defaults=True, exclude={"archive", "lake", "ray", "decoding", "confidence"})
    decoding = config.decoding.model_dump(mode="json", exclude={"actors", "engine"}) | dict(best.settings)
    tuned = {**kept, "decoding": decoding, "confidence": _rounded(calibration)}
    comment = f"# Made by dictalake tune: {len(trials)} trials on {best.errors.utterances} recordings.\n"
    (out / "tuned.yaml").write_text(comment + yaml.safe_dump(tuned, sort_keys=False), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([_trial_row(trial) for trial in trials]), out / "trials.parquet")
    figures = {name: _figures(before, after, config.confidence, calibration) for name, (before, after) in sets.items()}
    document = {"settings": tuned, "tuned_on": "dev", "sets": figures}
    (out / "tuning.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    rows = [[shown, *(_show(of_set[key]) for of_set in figures.values())] for key, shown in _SHOWN.items()]
    header = ("", *figures)
    settings = [[key, str(value)] for section in tuned.values() for key, value in section.items()]
    tables = [("Result", header, rows), ("Settings", ("key", "value"), settings)]
    page = render_page("Tuning", tables, _draw(config, trials, calibration, {name: after for name, (_, after) in sets.items()}))
    (out / "tuning.html").write_text(page, encoding="utf-8")
    if form == "json":
        print_json(document)
        return
    print_table([header[0], *(Column(name, is_number=True) for name in figures)], rows, title="tuning; dev was tuned on")
    print(f"settings in {out / 'tuned.yaml'}")


def _draw(
    config: Config, trials: Sequence[Trial], calibration: Confidence, tuned: dict[str, Trial]
) -> list[tuple[str, Markup]]:
    calibrated = [
        Calibrated(
            f"{name}{' (tuned on)' if name == 'dev' else ''}",
            apply_confidence(trial.evidence, config.confidence),
            apply_confidence(trial.evidence, calibration),
            trial.is_right,
        )
        for name, trial in tuned.items()
    ]
    curves = {name: _route(trial, calibration) for name, trial in tuned.items()}
    surface = [
        (trial.settings["lm_weight"], trial.settings["word_score"], trial.errors.rate)
        for trial in trials
        if set(trial.settings) == {"lm_weight", "word_score"}
    ]
    pictures = [("Word errors on the recordings tuned on", draw_surface(surface))] if surface else []
    return [
        *pictures,
        ("Calibration of words", draw_reliability(calibrated)),
        ("What a human should read", draw_routing(curves)),
    ]


def _figures(before: Trial, after: Trial, old: Confidence, new: Confidence) -> dict[str, float | None]:
    """Of one set. The rates are percentages; calibration errors are of the words that the tuned decoder gives."""
    evidence, is_right = after.evidence, after.is_right
    shares, rates = _route(after, new)
    within = sum(share <= 0.05 for share in shares)
    words = after.errors.words
    total = after.errors.rate * words
    kept_errors = _kept_errors(after, new, 0.05)
    figures = {
        "recordings": len(after.decoded),
        "words": words,
        "wer_before": 100 * before.errors.rate,
        "wer_after": 100 * after.errors.rate,
        "ece_before": expected_calibration_error(apply_confidence(evidence, old), is_right),
        "ece_after": expected_calibration_error(apply_confidence(evidence, new), is_right),
        "auc": area_under_roc(apply_confidence(evidence, new), is_right),
        "wer_of_rest_without_5_percent": 100 * rates[max(0, within - 1)],
        "errors_in_least_sure_5_percent": 100 * (1 - kept_errors / total) if total else 0.0,
        "hotwords_said": after.hotwords_said,
        "hotwords_found": after.hotwords_found,
        "hotwords_false": after.hotwords_false,
    }
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _count(trial: Trial, calibration: Confidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, reference words and mean confidence of each recording."""
    normalise = NORMALISERS[trial.normaliser]
    counts = [count_errors([(normalise(one.reference), normalise(one.hypothesis))]) for one in trial.decoded]
    errors = np.array([count.substitutions + count.deletions + count.insertions for count in counts])
    confidence = [
        float(apply_confidence(one.evidence, calibration).mean()) if len(one.evidence) else 0.0 for one in trial.decoded
    ]
    return errors, np.array([count.words for count in counts]), np.array(confidence)


def _route(trial: Trial, calibration: Confidence) -> tuple[list[float], list[float]]:
    return route(*_count(trial, calibration))


def _kept_errors(trial: Trial, calibration: Confidence, share: float) -> float:
    errors, _, confidence = _count(trial, calibration)
    sent = int(share * len(errors))
    return float(errors[np.argsort(confidence, kind="stable")[sent:]].sum())


def _trial_row(trial: Trial) -> dict[str, Any]:
    errors = trial.errors
    counts = ("words", "substitutions", "deletions", "insertions", "rate")
    return {key: float(value) for key, value in trial.settings.items()} | {name: getattr(errors, name) for name in counts}


def _rounded(calibration: Confidence) -> dict[str, float]:
    return {key: round(value, 4) for key, value in calibration.model_dump().items()}


def _show(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
