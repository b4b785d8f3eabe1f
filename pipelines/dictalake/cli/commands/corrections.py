"""Take corrections out of a lake, and say how good its transcripts are.

    dictalake corrections export ./lake --format manifest --out corrected.csv
    dictalake corrections export ./lake --format text --out corrected.txt
    dictalake corrections export ./lake --format label-studio --queue 100 --out tasks.json
    dictalake corrections wer ./lake

A manifest is for `evaluate`, `finetune` and `tune`, the text for `build-lm`; both leave out recordings that a person flagged.
Tasks of Label Studio name the sound by its place in the archive; --queue adds recordings that nobody has corrected yet.
`wer` says how many words of the whole lake are wrong, with 95 % intervals, by the corrections that `dictalake review` drew at
random. What is written is text of patients.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, read_config
from dictalake.errors import ConfigError

WITHOUT_PANDAS = True
_FORMATS = ("manifest", "text", "label-studio", "csv")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} export|wer LAKE [options]"
    parser.add_argument("action", choices=("export", "wer"), help="what to do")
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument(
        "--format",
        choices=(*_FORMATS, "table", "json"),
        help="of export: manifest, text, label-studio or csv; of wer: table or json",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--queue", type=int, default=0, metavar="N", help="add the next N recordings to check; label-studio")
    parser.add_config((*LAKE_KEYS, "review.user", "review.access_log"))


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake corrections export ./lake")
    form = arguments.format or ("manifest" if arguments.action == "export" else "table")
    if (form in _FORMATS) != (arguments.action == "export"):
        raise ConfigError(f"--format {form} is not for {arguments.action}")
    if arguments.queue < 0 or (arguments.queue and form != "label-studio"):
        raise ConfigError("--queue takes 1 or more, with --format label-studio")
    if arguments.action == "export" and arguments.out is None:
        raise ConfigError("--out is missing: name the file to write")
    from dictalake.review.snapshot import Snapshot

    snapshot = Snapshot(config.lake)
    snapshot.refresh()
    if arguments.action == "wer":
        from dictalake.cli.corrections import show_rate
        from dictalake.review.measure import measure_lake

        show_rate(measure_lake(snapshot), form)
        return 0
    from dictalake.lake.corrections import AccessLog
    from dictalake.review.exports import write_export
    from dictalake.review.measure import list_next
    from dictalake.review.sessions import name_account

    who = config.review.user or name_account()
    found = list_next(snapshot, who, "worst", config.review.claim_min, arguments.queue) if arguments.queue else []

    def write_down(ids: list[str]) -> None:
        if config.review.access_log:
            AccessLog(config.lake).add(who, ids, "export")

    counts = write_export(snapshot, form, arguments.out, [one.recording_id for one in found], write_down)
    line = f"{counts.written} written to {arguments.out}"
    if counts.flagged:
        line += f"; {counts.flagged} left out that are flagged or empty"
    if counts.inside:
        line += f"; {counts.inside} left out that are files in archive objects, which a manifest cannot name"
    if counts.rowless:
        line += f"; {counts.rowless} left out whose transcript is no longer in the lake"
    print(line, file=sys.stderr)
    return 0
