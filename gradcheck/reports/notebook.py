"""The terminal report as a notebook shows it: the same lines, coloured."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from gradcheck.reports._layout import NBSP, Line
from gradcheck.reports._shared import printable
from gradcheck.reports.text import lines

if TYPE_CHECKING:
    from gradcheck.model import Report

WIDTH = 100
CSS = {"bold": "font-weight:bold", "dim": "opacity:0.6"}  # anything else in a style is a colour
COLOURS = {"yellow": "#b58900", "cyan": "#008b8b"}  # readable on white, too


def html(report: Report, width: int = WIDTH) -> str:
    """The report as one <pre>; safe to show, whatever a framework's words hold."""
    shown = "\n".join(map(_line, lines(printable(report), width)))
    return f'<pre class="gradcheck" style="white-space:pre;line-height:1.25">{shown}</pre>'


def _line(line: Line) -> str:
    return "".join(_span(text.replace(NBSP, " "), style) for text, style in line)


def _span(text: str, style: str) -> str:
    rules = ";".join(CSS.get(word, f"color:{COLOURS.get(word, word)}") for word in style.split())
    return f'<span style="{rules}">{escape(text)}</span>' if rules else escape(text)
