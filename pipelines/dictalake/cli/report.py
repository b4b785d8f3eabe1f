"""Writes a report of a lake to read and to keep: one HTML page, which needs neither network nor script.

    dictalake report --lake.uri gs://lake/speech --out report.html
    dictalake report --lake.uri gs://lake/speech --out report.html --run 20260301T013000-abcdef

Counts, hours, speed, failures with what to do about each, confidence, the slowest and the least covered recordings, and what
made the rows. Without --run: the last run that wrote rows, and then the whole lake. Recordings are named by their id; no text
is in it unless --with-text is given. A run leaves its report in the lake too, as reports/<run_id>.html (report.write), and
dictalake forget takes what is erased out of those; of pages that are written elsewhere their owner takes care.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dictalake import logs
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.errors import ConfigError
from dictalake.html import write_private
from dictalake.reporting.page import render_report
from dictalake.reporting.queries import read_price, read_report


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("report", __doc__ or "")
    parser.usage = "dictalake report --lake.uri LAKE --out FILE.html [--run RUN_ID] [options]"
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the page here")
    parser.add_argument("--run", metavar="RUN_ID", help="of this run alone; dictalake runs lists them")
    parser.add_argument(
        "--with-text", action="store_true", help="show the first words of the least covered transcripts: patient data"
    )
    arguments, overrides = parse(parser, argv)
    config = read_config(arguments, overrides)
    out = check_out(arguments.out)
    report = read_report(config.lake, read_price(config), arguments.run, with_text=arguments.with_text)
    page = render_report(report).encode()
    try:
        write_private(out, page)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror})") from None
    about = [part.run.run_id if part.run else "the whole lake" for part in report.parts]
    line = f"{out}: {', '.join(about)}; {len(page) / 1e3:.0f} kB"
    logs.log_event("report", line, print, about=about, kilobytes=round(len(page) / 1e3))
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


if __name__ == "__main__":
    sys.exit(main())
