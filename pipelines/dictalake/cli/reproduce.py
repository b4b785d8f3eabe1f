"""Makes rows of a lake again and says whether they come out identical, or what differs. Changes nothing in the lake."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.tables import Column, print_json, print_lines, print_table
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.query import connect, open_lake
from dictalake.workflow.compare_rows import ROW_SECTIONS, Cause, Effect, Tolerance, compare_rows, find_causes
from dictalake.workflow.reproduce import Move, Reproducer, recall_config, root_of, why_not
from dictalake.workflow.row_origin import find_object

IDENTICAL, DIFFERS, NOT_MADE = "identical", "differs", "not made again"
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}")
Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What became of one row. ``why`` says why it was not made again; then there is no effect."""

    then: Row
    now: Row | None = None
    causes: tuple[Cause, ...] = ()
    effect: Effect | None = None
    why: str | None = None

    @property
    def verdict(self) -> str:
        if self.effect is None:
            return NOT_MADE
        return DIFFERS if self.effect.fields else IDENTICAL


def reproduce_rows(arguments: argparse.Namespace, here: Config, given: Mapping[str, Mapping[str, Any]], ids: list[str]) -> int:
    """Prints and writes what came out; the exit code. ``given`` are the keys of the command line."""
    disable_progress_bar()
    rows = read_rows(here.lake, choose_rows(here.lake, ids, arguments.sample, arguments.seed, arguments.fingerprint))
    results = reproduce(rows, read_runs(here.lake, {row["run_id"] for row in rows}), here, given)
    if arguments.format == "json":
        print_json(to_document(results, with_text=arguments.show_text))
    else:
        show(results, Console(), with_text=arguments.show_text)
    if arguments.json:
        write_json(arguments.json, results, with_text=arguments.show_text)
    return 0 if all(result.verdict == IDENTICAL for result in results) else 3


def choose_rows(
    lake: Lake, ids: Sequence[str], sample: int | None, seed: int, fingerprint: str | None
) -> list[tuple[str, str, int]]:
    """Recording id, fingerprint and attempt of one row of each recording. Raises ConfigError where one has none."""
    assert lake.uri is not None
    wanted, values = ["true"], list[Any]()
    if ids:
        wanted.append(f"recording_id IN ({', '.join('?' * len(ids))})")
        values += ids
    if fingerprint is not None:
        wanted.append("fingerprint = ?")
        values.append(fingerprint)
    if sample is not None:
        wanted.append("error.reason IS DISTINCT FROM 'erased'")
    draw = f"ORDER BY md5(recording_id || '/{seed}') LIMIT {sample}" if sample is not None else ""
    found = (
        connect(lake.uri, lake.storage_options, names=())
        .execute(
            f"""
            SELECT recording_id, fingerprint, attempt FROM transcript_rows WHERE {" AND ".join(wanted)}
            QUALIFY row_number() OVER (
                PARTITION BY recording_id ORDER BY status = 'ok' DESC, provenance.transcribed_at DESC, attempt DESC
            ) = 1 {draw}
            """,
            values,
        )
        .fetchall()
    )
    missing = sorted(set(ids) - {recording_id for recording_id, _, _ in found})
    if missing or not found:
        under = "" if fingerprint is None else f" under the fingerprint {fingerprint}"
        raise ConfigError(f"the lake has no row{under} of {', '.join(missing) or 'anything'}")
    return found


def read_rows(lake: Lake, keys: Sequence[tuple[str, str, int]]) -> list[Row]:
    """Those rows whole, in that order."""
    field = ds.field
    filters = field("recording_id").isin([key[0] for key in keys]) & field("fingerprint").isin(sorted({key[1] for key in keys}))
    assert lake.uri is not None
    rows = open_lake(lake.uri, lake.storage_options).to_table(filter=filters).to_pylist()
    by_key = {(row["recording_id"], row["fingerprint"], row["attempt"]): row for row in rows}
    return [by_key[key] for key in keys]


def read_runs(lake: Lake, run_ids: set[str]) -> dict[str, tuple[dict[str, Any], str | None]]:
    """The recorded configuration of each run that has one, and its decoding_hash."""
    assert lake.uri is not None
    sql = "SELECT run_id, config, decoding_hash FROM runs WHERE config IS NOT NULL"
    found = connect(lake.uri, lake.storage_options, names=("runs",)).execute(sql).fetchall()
    return {run_id: (json.loads(text), decoding_hash) for run_id, text, decoding_hash in found if run_id in run_ids}


def reproduce(
    rows: Sequence[Row],
    runs: Mapping[str, tuple[dict[str, Any], str | None]],
    here: Config,
    given: Mapping[str, Mapping[str, Any]],
) -> list[Result]:
    """What becomes of each row, in order; ``given`` are the keys of the command line."""
    results: dict[str, Result] = {}
    for run_id in dict.fromkeys(row["run_id"] for row in rows):
        of_run = [row for row in rows if row["run_id"] == run_id]
        for row in of_run:
            why = why_not(row) or (None if run_id in runs else "the lake has no record of its run")
            if why is not None:
                results[row["recording_id"]] = Result(row, why=why)
        pending = [row for row in of_run if row["recording_id"] not in results]
        if not pending:
            continue
        try:
            results |= {row["recording_id"]: result for row, result in _remake(pending, *runs[run_id], here, given)}
        except ConfigError as error:
            if given.keys() & set(ROW_SECTIONS):  # what was asked for cannot be
                raise
            results |= {row["recording_id"]: Result(row, why=str(error)) for row in pending}
    return [results[row["recording_id"]] for row in rows]


def _remake(
    rows: Sequence[Row],
    recorded: dict[str, Any],
    decoding_hash: str | None,
    here: Config,
    given: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Row, Result]]:
    """The rows of one run."""
    from dictalake.workflow.identity import identify, open_output_spec

    config = recall_config(recorded, here, given)
    move = None
    if "uri" in given.get("archive", {}):
        root = root_of(recorded["archive"])
        if not root:
            raise ConfigError("archive.uri: the run did not record what its recordings were below; leave archive.uri out")
        move = Move(root, str(config.archive.uri), config.archive.storage_options)
    checkpoint = find_checkpoint(config.acoustic)
    reading, provenance = open_output_spec(config, checkpoint), identify(config, checkpoint)
    maker = Reproducer(config, provenance, reading, os.cpu_count() or 1)
    for batch in split_by_uri(rows):
        for row, now in _make(maker, batch, move):
            if now is None:  # its archive object holds it no longer, or cannot be opened any more
                yield row, Result(row, why="the archive object that held it does not give it any more")
                continue
            causes = find_causes(row, now, recorded, config.model_dump(mode="json"))
            of_decoding = {cause.what for cause in causes if cause.what.startswith("decoding.") or cause.what == "lm_sha256"}
            if config.decoding.hotwords and not of_decoding and decoding_hash not in (None, provenance.decoding_hash):
                causes.append(Cause("the file of decoding.hotwords (decoding_hash)", decoding_hash, provenance.decoding_hash))
            yield row, Result(row, now, tuple(causes), compare_rows(row, now, Tolerance.of(row)))


def split_by_uri(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """``rows`` in as few lists as there are versions of one object: rows are made, and found again, by their URI."""
    left = list(rows)
    while left:
        batch = {row["source"]["uri"]: row for row in reversed(left)}
        yield list(batch.values())
        left = [row for row in left if row is not batch[row["source"]["uri"]]]


def _make(maker: Reproducer, rows: Sequence[Row], move: Move | None) -> Iterator[tuple[Row, Row | None]]:
    """Each of ``rows``, of which no two have a URI in common, with what it is now."""
    objects, places = {}, {}
    for row in rows:
        one = find_object(row)
        moved = move(one) if move else one
        objects[moved.uri] = moved
        places[row["recording_id"]] = moved.uri + row["source"]["uri"].removeprefix(one.uri)
    made = maker.make(list(objects.values()), set(places.values()))
    for row in rows:
        yield row, made.get(places[row["recording_id"]])


def show(results: Sequence[Result], console: Console, *, with_text: bool = False) -> None:
    """Two tables: the rows, and what made them then and now."""
    counts = Counter(result.verdict for result in results)
    title = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (IDENTICAL, DIFFERS, NOT_MADE) if counts[verdict])
    columns = [Column("recording_id"), Column("fingerprint"), Column("row"), Column("made again")]
    columns += [Column("what differs", may_wrap=True)]
    columns += [Column(name, is_number=True) for name in ("words", "changed", "WER", "time", "confidence")]
    print_table(columns, [_cells(result) for result in results], title=title, console=console)
    _show_causes(results, console)
    for result in results:
        if with_text and result.verdict == DIFFERS and result.now is not None:
            print_lines(console, "", result.then["recording_id"])
            for label, row in (("then", result.then), ("now ", result.now)):
                print_lines(console, f"  {label} {row['text_raw'] or ''}")


def _cells(result: Result) -> list[str]:
    start = [result.then["recording_id"], result.then["fingerprint"]]
    effect = result.effect
    if effect is None:
        return [*start, result.then["status"], NOT_MADE, result.why or "", *[""] * 5]
    then_now = effect.then if effect.then == effect.now else f"{effect.then} → {effect.now}"
    start += [then_now, result.verdict, ", ".join(effect.fields)]
    if "ok" not in (effect.then, effect.now):
        return [*start, *[""] * 5]
    rate = "" if effect.word_error_rate is None else f"{100 * effect.word_error_rate:.1f} %"
    shifts = [f"{effect.time_shift_s:.3f} s", f"{effect.confidence_shift:.4f}"]
    return [*start, str(effect.words), str(effect.words_changed), rate, *shifts]


def _show_causes(results: Sequence[Result], console: Console) -> None:
    rows = Counter(cause for result in results for cause in result.causes)
    made = [result for result in results if result.now is not None]
    is_code_known = all(_is_code_known(result) for result in made)
    if not is_code_known:
        print_lines(console, "this code is of no known commit, or changed since: whether it is the code of then cannot be told")
    if uncompared := sum(not _is_compared(result) for result in made):
        print_lines(
            console,
            f"of {uncompared} row{'s' if uncompared > 1 else ''} not everything could be compared: the recording was not read, "
            "or not heard, then or now",
        )
    if not rows:
        if made and not uncompared:
            code = ", by the same commit" if is_code_known else ""
            print_lines(console, f"made from the same bytes, by the same weights, configuration, device and versions{code}")
        return
    columns = [Column(name, may_wrap=True) for name in ("what made them", "then", "now")] + [Column("rows", is_number=True)]
    cells = [(cause.what, *_shorten(cause.then, cause.now), str(count)) for cause, count in rows.items()]
    print_table(columns, cells, title="not as it was", console=console)


def _is_code_known(result: Result) -> bool:
    """Whether the code that made the row now is that of a commit, so that ``git_commit`` tells it from other code."""
    commit = None if result.now is None else result.now["provenance"]["git_commit"]
    return commit is not None and not commit.endswith("-dirty")


def _is_compared(result: Result) -> bool:
    """Whether bytes and device of both rows are known: what is gone, or was not heard, says nothing of them."""
    then, now = result.then, result.now or {}
    hashes = [(row.get("source") or {}).get("sha256") for row in (then, now)]
    devices = [(row.get("provenance") or {}).get("device") for row in (then, now)]
    return None not in hashes and (devices[0] is None) == (devices[1] is None)


def _shorten(then: str | None, now: str | None) -> tuple[str, str]:
    """Hashes by their beginning, where that tells them apart."""
    texts = [text or "none" for text in (then, now)]
    short = [_HASH.sub(r"\1…", text) for text in texts]
    return (texts[0], texts[1]) if short[0] == short[1] else (short[0], short[1])


def to_document(results: Sequence[Result], *, with_text: bool = False) -> dict[str, Any]:
    """One object a row: verdict, causes, effect, what could not be told."""
    rows = []
    for result in results:
        keys = ("recording_id", "fingerprint", "attempt", "run_id")
        row: dict[str, Any] = {key: result.then[key] for key in keys} | {"verdict": result.verdict, "why": result.why}
        row["causes"] = [asdict(cause) for cause in result.causes]
        row |= dict.fromkeys(("is_code_known", "is_compared", "effect"))  # null of what was not made again
        if result.now is not None:
            row |= {"is_code_known": _is_code_known(result), "is_compared": _is_compared(result)}
        if result.effect is not None:
            row["effect"] = asdict(result.effect) | {"word_error_rate": result.effect.word_error_rate}
            row["tolerance"] = asdict(Tolerance.of(result.then))
        if with_text and result.verdict == DIFFERS and result.now is not None:
            row |= {"text_raw_then": result.then["text_raw"], "text_raw_now": result.now["text_raw"]}
        rows.append(row)
    return {"rows": rows}


def write_json(path: Path, results: Sequence[Result], *, with_text: bool = False) -> None:
    """Raises RunError when it cannot be written."""
    document = to_document(results, with_text=with_text)
    try:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write --json {path}: {error.strerror or error}") from None
