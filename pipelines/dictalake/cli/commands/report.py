"""Write one HTML page about a run or the whole lake, to read and to keep. It needs neither network nor script.

    dictalake report ./lake --out report.html
    dictalake report ./lake --out report.html --run 20260301T013000-abcdef

It shows counts, hours, speed, failures with advice on each, confidence, the slowest and the least covered recordings, and what
made the rows. Without --run it covers the last run that wrote rows, and then the whole lake. It names recordings by id, and
holds no text unless you give --with-text. A run leaves its own report in the lake (reports/<run_id>.html, key report.write);
dictalake forget cleans those. Pages that you write elsewhere are yours to look after.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, read_config
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE --out FILE.html [--run RUN_ID] [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the page here")
    parser.add_argument("--run", metavar="RUN_ID", help="cover this run alone; dictalake runs lists them")
    parser.add_argument(
        "--with-text", action="store_true", help="show the first words of the least covered transcripts: patient data"
    )
    add_format(parser)
    parser.add_config((*LAKE_KEYS, "report.price_per_hour", "report.currency"))


def run(arguments: argparse.Namespace) -> int:
    config, out = read_config(arguments), check_out(arguments.out)
    from dictalake import logs
    from dictalake.cli.tables import print_json
    from dictalake.html import write_private
    from dictalake.reporting.page import render_report
    from dictalake.reporting.queries import read_price, read_report

    report = read_report(config.lake, read_price(config), arguments.run, with_text=arguments.with_text)
    page = render_report(report).encode()
    try:
        write_private(out, page)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror})") from None
    about = [part.run.run_id if part.run else "the whole lake" for part in report.parts]
    kilobytes = round(len(page) / 1e3)

    def show(line: str) -> None:
        if arguments.format == "json":
            print_json({"out": str(out), "about": about, "kilobytes": kilobytes})
        else:
            print(line)

    logs.log_event("report", f"{out}: {', '.join(about)}; {kilobytes} kB", show, about=about, kilobytes=kilobytes)
    return 0


def check_out(out: Path | None) -> Path:
    """Raises ConfigError where there is nothing to write to."""
    if out is None:
        raise ConfigError("--out is missing: say where the page goes, e.g. --out report.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: its name must end in .html, or browsers show it as text")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    return out
