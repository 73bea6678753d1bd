"""Annotations for GitHub Actions: one per finding that was not expected, at the line to blame; then the summary."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent
from typing import IO, TYPE_CHECKING

from gradcheck.model import Blame, CaseReport, Finding, Report, Severity
from gradcheck.reports._shared import printable, speaks_utf8, unexpected
from gradcheck.reports.text import finding_text, headline, summary

if TYPE_CHECKING:
    from rich.console import Console

LEVELS = {Severity.ERROR: "error", Severity.INCONCLUSIVE: "warning", Severity.ADVICE: "notice"}
MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY = MESSAGE | str.maketrans({":": "%3A", ",": "%2C"})


def render(report: Report, console: Console, verbose: int = 0, quiet: bool = False) -> None:
    write(report, console.file)


def write(report: Report, stream: IO[str]) -> None:
    utf8 = speaks_utf8(stream)
    report = printable(report, utf8)
    text = "".join(line + "\n" for line in commands(report)) + summary(report) + "\n"
    stream.write(text if utf8 else text.replace("·", "|"))


def commands(report: Report) -> Iterator[str]:
    for problem in report.problems:
        yield _annotation("error", problem.path, problem.line, problem.column, "broken case file", problem.message)
    for case, finding in unexpected(report):
        yield _finding(case, finding)
    for warning in report.warnings:
        yield _annotation("warning", "", 0, None, "gradcheck", warning)


def _finding(case: CaseReport, finding: Finding) -> str:
    blame = finding.blame or Blame(file=case.path, line=0, column=None, op="", text="")
    message = dedent(finding_text(case.path, finding, headline=False)).strip()
    return _annotation(LEVELS[finding.severity], blame.file, blame.line, blame.column, headline(finding), message)


def _annotation(level: str, file: str, line: int, column: int | None, title: str, message: str) -> str:
    properties = {"file": file, "line": line or "", "col": (line and column) or "", "title": title}
    written = ",".join(f"{name}={str(value).translate(PROPERTY)}" for name, value in properties.items() if value)
    return f"::{level} {written}::{message.translate(MESSAGE)}"
