"""Report formats: one module each, one line each in FORMATS. Importing this imports neither rich nor numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gradcheck.reports import github, json, junit, text

if TYPE_CHECKING:
    from rich.console import Console

    from gradcheck.model import Report

# name -> what shows a report on a console: render(report, console, verbose, quiet).
# json and junit also have write_file(report, path).
FORMATS: Mapping[str, Callable[[Report, Console, int, bool], None]] = {
    "text": text.render,
    "json": json.render,
    "github": github.render,
    "junit": junit.render,
}
