"""What all HTML pages share: each is one file without network or script, and follows the light or dark mode of the reader.

matplotlib draws the charts, which the page holds as SVG. INK, MUTED and so on become colours of ``pages.css`` there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# Placeholder colours that no chart uses otherwise; in the page each becomes a variable of the style sheet.
INK, MUTED, LINE, BLUE, ORANGE, GREEN, GREY = (f"#0{digit}0{digit}0{digit}" for digit in range(1, 8))
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", BLUE: "blue", ORANGE: "orange", GREEN: "green", GREY: "grey"}
# Should a text ever stand in a page unescaped, the browser runs no script of it, asks no server for anything and sends no form.
# Charts and tables have styles of their own; snippets of sound and pictures are inside of the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
_HEAD = Markup(f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, readable by screen readers, in the reader's own font
    "svg.hashsalt": "dictalake",  # the same picture each time
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 9.0,
}


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may read, also if it existed before. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate()
        file.write(content)


def open_templates(folder: Path) -> Environment:
    """The templates of ``folder``, which may include ``pages.css``, and whose head begins with ``{{ head }}``.

    Every value is escaped.
    """
    environment = Environment(loader=FileSystemLoader([folder, Path(__file__).parent]), autoescape=True)
    environment.globals["head"] = _HEAD
    return environment


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of ``width`` × ``height`` inches in the colours of the page; call ``to_svg`` inside the context."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as SVG for a page. ``label`` describes it for readers who cannot see it."""
    out = io.StringIO()
    with mpl.rc_context({name: _STYLE[name] for name in ("svg.fonttype", "svg.hashsalt")}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    # matplotlib numbers its shapes from 1 in each figure, and a page holds several.
    prefix = f"s{blake2b((text + label).encode(), digest_size=4).hexdigest()}-"
    for before in ('id="', 'href="#', "url(#"):
        text = text.replace(before, before + prefix)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {text[text.index("<svg") + 5 :]}')
