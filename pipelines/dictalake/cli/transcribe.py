"""Transcribes the files and folders that a person named, and shows what came out on their own terminal.

Names and texts go to standard output alone, never to logs.
"""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from dictalake.archive import storage
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest_rows import clean_name
from dictalake.cli.own_recordings import Place, find_common_folder
from dictalake.cli.run_end import log_end
from dictalake.cli.tables import print_lines
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive, Config
from dictalake.config.uris import list_spellings
from dictalake.errors import ConfigError, advise
from dictalake.lake.query import connect
from dictalake.terminal import printable
from dictalake.workflow.run import transcribe
from dictalake.workflow.summary import RunSummary
from dictalake.workflow.worklist import Retry

_MOST_SHOWN = 3
_SMALL_MODEL = "embedded:medasr-mini"
_MANIFEST = pa.schema([pa.field("uri", pa.string())])
_BATCH = 10_000


@dataclass(frozen=True)
class Outcome:
    """What the lake holds of one recording. ``text`` is None where it failed, for ``reason``; ``detail`` says more."""

    uri: str
    text: str | None
    reason: str | None
    detail: str | None


def transcribe_places(config: Config, places: Sequence[Place], arguments: argparse.Namespace, retry: Retry | None) -> int:
    """The exit code: 3 where a recording of ``places`` failed, now or before."""
    with TemporaryDirectory(prefix="dictalake-") as folder:
        listing = make_archive(config.archive, places, Path(folder))
        # A manifest of ours is gone after the run: its records name what is there to stay.
        recorded = listing.model_copy(update={"uri": find_common_folder(places), "manifest": None})
        run_config = config.model_copy(update={"archive": recorded})
        console = Console(stderr=True)
        summary = transcribe(
            run_config,
            console,
            job="transcribe",
            retry=retry,
            listing=listing,
            on_new="pass",
            allow_empty=True,  # a person who names a folder sees what is in it
        )
    outcomes = read_outcomes(config, places, summary.fingerprint)

    def show(line: str) -> None:
        console = Console()
        show_outcomes(outcomes, places, console)
        show_next(config, arguments, console, summary)

    log_end(summary, f"run {summary.run_id}: {summary.ok} transcribed, {summary.failed} failed", show, is_asked_for=True)
    return 3 if any(outcome.reason for outcome in outcomes) else 0


def make_archive(archive: Archive, places: Sequence[Place], folder: Path) -> Archive:
    """One folder is listed as any archive; else a manifest in ``folder`` names every file. Raises ConfigError, RunError."""
    for place in places:
        _require_utf_8(place.location, place.given)
    if len(places) == 1 and places[0].is_folder:
        return archive.model_copy(update={"uri": places[0].location, "manifest": None, "inventory": None})
    allowed = tuple(place.location for place in places)
    manifest = folder / "recordings.parquet"  # a name may hold a newline, which would end a line of CSV
    uris = _name_files(archive, places)
    with pq.ParquetWriter(manifest, _MANIFEST) as writer:
        while batch := list(islice(uris, _BATCH)):
            writer.write_table(pa.table({"uri": batch}, _MANIFEST))
    return archive.model_copy(update={"uri": None, "manifest": str(manifest), "inventory": None, "allowed": allowed})


def _name_files(archive: Archive, places: Sequence[Place]) -> Iterator[str]:
    """The URI of every file of ``places``, as a manifest gives it back. Raises ConfigError, RunError."""
    for place in places:
        if place.is_folder:
            for recording in list_recordings(archive.model_copy(update={"uri": place.location})):
                yield _as_field(recording.uri, name_as_given(recording.uri, places))
        else:
            yield _as_field(place.location, place.given)


def _as_field(uri: str, shown: str) -> str:
    """``uri`` as a field of a manifest gives it back. Raises ConfigError for a name that no field can carry."""
    is_local = uri.startswith(("/", "file://"))
    if is_local:
        _require_utf_8(storage.decode_local_path(uri), shown)
    if uri == clean_name(uri):
        return uri
    if not is_local:
        raise ConfigError(f"{printable(shown)}: its name ends in a space; name only the folder that holds it")
    return f"{uri}/"  # a manifest's fields are stripped of blanks, and then a path of its last slash


def _require_utf_8(location: str, shown: str) -> None:
    try:
        location.encode("utf-8")
    except UnicodeEncodeError:
        name = printable(shown)
        raise ConfigError(f"{name}: its name is not UTF-8; rename it, or name only the folder that holds it") from None


def read_outcomes(config: Config, places: Sequence[Place], fingerprint: str) -> list[Outcome]:
    """The newest row of each recording of ``places`` under this model and configuration, by name."""
    conditions, values = [], [fingerprint]
    for place in places:
        for uri in list_spellings(resolve(place.location)):
            # a folder, or a file and the files inside it
            conditions.append("(uri = ? OR starts_with(uri, ?) OR starts_with(uri, ?))")
            values += [uri, f"{uri.rstrip('/')}/", f"{uri}#"]
    assert config.lake.uri is not None
    rows = connect(config.lake.uri, config.lake.storage_options, names=()).execute(
        f"""
        SELECT uri, text, reason, detail FROM (
            SELECT source.uri AS uri, text, error.reason AS reason, error.detail AS detail,
                   provenance.transcribed_at AS written_at, attempt
            FROM transcript_rows
            WHERE fingerprint = ?
        ) WHERE {" OR ".join(conditions)}
        QUALIFY row_number() OVER (PARTITION BY uri ORDER BY written_at DESC NULLS LAST, attempt DESC) = 1
        ORDER BY uri
        """,
        values,
    )
    return [Outcome(*row) for row in rows.fetchall()]


def show_outcomes(outcomes: Sequence[Outcome], places: Sequence[Place], console: Console) -> None:
    """The texts of a few recordings, and the failed ones with what to do."""
    good = [outcome for outcome in outcomes if outcome.reason is None]
    failed = [outcome for outcome in outcomes if outcome.reason is not None]
    for outcome in good[:_MOST_SHOWN]:
        print_lines(console, "", name_as_given(outcome.uri, places))
        print_lines(console, *_wrap(outcome.text or "(no words were heard)", console.width))
    if len(good) > _MOST_SHOWN:
        print_lines(console, "", f"These are {_MOST_SHOWN} of {len(good)} transcripts.")
    if failed:
        print_lines(console, "", f"{len(failed)} failed:" if len(failed) > 1 else "1 failed:")
    for outcome in failed[:_MOST_SHOWN]:
        print_lines(console, f"  {name_as_given(outcome.uri, places)}")
        print_lines(console, *_wrap(f"{outcome.reason}: {outcome.detail}", console.width, "    "))
        print_lines(console, *_wrap(advise(outcome.reason or ""), console.width, "    "))
    if len(failed) > _MOST_SHOWN:
        print_lines(console, f"  and {len(failed) - _MOST_SHOWN} more; the view failures of the lake lists them")
    if not outcomes:
        print_lines(console, "", "There was nothing to transcribe.")


def show_next(config: Config, arguments: argparse.Namespace, console: Console, summary: RunSummary | None = None) -> None:
    """Where the lake is, and the two commands to try next."""
    lake, options = shlex.quote(str(config.lake.uri)), _repeat(arguments, ("lake.",))
    print_lines(console, "", f"The transcripts are in the lake {config.lake.uri}", "")
    if summary is not None and summary.standing == "experiment":
        print_lines(console, "Its view transcripts still shows those of the model before. To show these:")
        print_lines(console, f"  dictalake promote {lake} {summary.fingerprint}{options}", "")
    print_lines(console, "Next, ask it a question:")
    print_lines(console, f'  dictalake query {lake} "SELECT text, confidence FROM transcripts"{options}')
    if config.acoustic.model == _SMALL_MODEL:
        paths = " ".join(shlex.quote(path) for path in arguments.paths)
        # A file of the person's own stays, and the model goes in front of what it says.
        model = "" if arguments.config else " --config medasr"
        kept = _repeat(arguments, ("",), but=("acoustic.model", "acoustic.kind", "decoding.lm"))
        kept += " --acoustic.model google/medasr --decoding.lm model:lm_6.kenlm" if arguments.config else ""
        print_lines(console, "", "or use a model for real voices (it needs a Hugging Face token):")
        print_lines(console, f"  dictalake transcribe {paths} --lake {lake}{model}{kept}")
    else:
        print_lines(console, "", "or write a page about all of it:")
        print_lines(console, f"  dictalake report {lake} --out report.html{_repeat(arguments, ('lake.', 'report.'))}")


def _repeat(arguments: argparse.Namespace, starts: tuple[str, ...], but: tuple[str, ...] = ()) -> str:
    """``--config`` and the given keys with these beginnings, for another command. Options of a storage may be secrets."""
    words = ["--config", arguments.config] if arguments.config else []
    for key, value in arguments.overrides:
        if key.startswith(starts) and key not in (*but, "lake.uri"):
            words += [f"--{key}", "…" if key.endswith("storage_options") else value]
    return "".join(f" {shlex.quote(word) if word != '…' else word}" for word in words)


def name_as_given(uri: str, places: Sequence[Place]) -> str:
    """The file as the person would type it."""
    for place in places:
        for location in list_spellings(resolve(place.location)):
            location = location.rstrip("/")
            if uri == location or uri.startswith((f"{location}/", f"{location}#")):
                return place.given.rstrip("/") + uri.removeprefix(location)
    return uri.removeprefix("file://")


def _wrap(text: str, width: int, indent: str = "  ") -> list[str]:
    return [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(paragraph, width, initial_indent=indent, subsequent_indent=indent)
    ]
