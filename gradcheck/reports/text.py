"""The terminal report: what is wrong, where, why, and what to do; readable at width 80 and without colour.

Everything is laid out as lines of styled spans first; `render` alone prints, and alone needs rich.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradcheck.model import Blame, CaseReport, Change, Finding, Report, Severity
from gradcheck.reports._layout import NBSP, Line, cells, command_lines, hang, pad, plain, refill, wrap
from gradcheck.reports._shared import (
    EXIT_MEANING,
    counts,
    derivative,
    expectation_reason,
    fails,
    printable,
    speaks_utf8,
)
from gradcheck.reports._table import table

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 40
TYPED = str.maketrans({NBSP: " "})
TYPED_ASCII = TYPED | str.maketrans({"·": "|"})
MANY_NAMES = 12
SHORT = 60  # columns of text that may be said twice
INDENT = " " * 6
SLOTS = ("because", "proof", "help", "note", "whose")
STYLES = {Severity.ERROR: "bold red", Severity.INCONCLUSIVE: "bold yellow", Severity.ADVICE: "bold cyan"}
DIFF = {"-": "red", "+": "green"}
ORDER = {Severity.ERROR: 0, Severity.INCONCLUSIVE: 1, Severity.ADVICE: 2}


def render(report: Report, console: Console, verbose: int = 0, quiet: bool = False) -> None:
    """Print a report. verbose: also detection limits, backends, expected findings in full; quiet: only what fails."""
    from rich.text import Text

    utf8 = speaks_utf8(console.file)
    for line in lines(printable(report, utf8), console.width, verbose, quiet):
        text = Text.assemble(*((part.translate(TYPED if utf8 else TYPED_ASCII), style) for part, style in line))
        text.rstrip()
        console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


def text(report: Report, width: int = 80, verbose: int = 0) -> str:
    """The whole report as plain text."""
    return plain(lines(printable(report), width, verbose)).rstrip("\n")


def failures(report: Report, width: int = 80) -> str:
    """What a failing test has to say: every finding that was not expected, but for mere advice, and the summary."""
    report = printable(report)
    told = [
        plain(_finding(case.path, finding, width, verbose=1))
        for case in report.cases
        for finding in case.findings
        if not finding.expected and finding.severity is not Severity.ADVICE
    ]
    told += [f"{problem}\n" for problem in report.problems]
    rerun = plain(command_lines("rerun: ", report.rerun, width)) if report.rerun else ""
    return "\n".join([*told, f"{summary(report)}\n{rerun}".rstrip()])


def lines(report: Report, width: int, verbose: int = 0, quiet: bool = False) -> Iterator[Line]:
    """The whole report; no line wider than `width` columns (but never narrower than 40)."""
    width = max(width, NARROWEST)
    for problem in report.problems:
        yield from _hanging(str(problem), width, "bold red")
    if report.problems and not quiet:
        yield []
    for case in report.cases:
        yield from _quiet_case(case, width) if quiet else _case(case, width, verbose)
    if verbose and not quiet:
        yield from _backends(report, width)
    yield from hang("", summary(report), width, style="bold red" if report.exit_code in (1, 2, 4) else "bold")
    if not quiet:
        yield from _closing(report, width)


def summary(report: Report) -> str:
    """One line: what ran and how it went; counts that are zero are left out, except of what passed."""
    count = counts(report)
    tally = [f"{count[name]} {name.replace('_', ' ')}" for name in list(count)[2:] if count[name] or name == "passed"]
    if report.problems:
        tally.append(_many(len(report.problems), "problem") + " in case files")
    ran = f"{_many(count['cases'], 'case')}, {_many(count['checks'], 'check')}"
    return f"{ran}: {', '.join(tally)} in {_duration(report.seconds)}"


def finding_text(path: str, finding: Finding, width: int = 80, headline: bool = True) -> str:
    """One diagnosis without colour, as in DESIGN section 9; path: of the case file."""
    found = list(_finding(path, finding, width, verbose=1))
    return plain(found if headline else found[len(_headline(finding, width)) :])


def headline(finding: Finding) -> str:
    return f"{'expected' if finding.expected else finding.severity.value}[{finding.code}]: {finding.title}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _hanging(text: str, width: int, style: str) -> list[Line]:
    first, *rest = wrap(text, width) if cells(text) <= width else wrap(text, width - 2)
    return [[(first, style)], *([("  " + line, style)] for line in rest)]


def _quiet_case(case: CaseReport, width: int) -> Iterator[Line]:
    for finding in filter(fails, case.findings):
        yield from _hanging(f"{case.path}: {headline(finding)}", width, "bold red")


def _case(case: CaseReport, width: int, verbose: int) -> Iterator[Line]:
    yield from _hanging(f"{case.name} · {case.path} · seed{NBSP}{case.seed}", width, "bold")
    yield []
    yield from table(case, width, verbose)
    yield []
    if case.self_test:
        yield from _self_test(case, width)
        yield []
    told: list[Finding] = []
    for finding in sorted(case.findings, key=lambda finding: (finding.expected, ORDER[finding.severity])):
        yield from _finding(case.path, finding, width, verbose, () if verbose else told)
        yield []
        told.append(finding)


def _self_test(case: CaseReport, width: int) -> Iterator[Line]:
    """Planted errors, one line a kind: over how many passing checks, seen by which backends, missed where."""
    yield [("self-test: errors planted into the gradients that passed", "bold")]
    for kind in dict.fromkeys(p.kind for p in case.self_test):
        rows = [p for p in case.self_test if p.kind == kind]
        planted, seen = sum(p.planted for p in rows), sum(p.seen for p in rows)
        missed = dict.fromkeys(f"{p.backend}: {where}" for p in rows for where in p.missed)
        text = f"{seen} of {planted} seen" + (f"; missed: {', '.join(missed)}" if missed else "")
        yield from hang(f"  {kind:<31}", text, width, "", "" if not missed else "yellow")


def _headline(finding: Finding, width: int) -> list[Line]:
    style = "dim" if finding.expected else STYLES[finding.severity]
    title_style = "dim" if finding.expected else "bold"
    label = headline(finding).removesuffix(finding.title)
    return hang(label, finding.title, width, style, title_style)


def _finding(path: str, finding: Finding, width: int, verbose: int, told: Sequence[Finding] = ()) -> Iterator[Line]:
    """One finding in full. told: those above it; what they have said already is not said again."""
    style = "dim" if finding.expected else ""
    yield from _headline(finding, width)
    yield from hang("  --> ", _place(path, finding, verbose), width, "blue", style)
    if finding.expected and not verbose:
        if reason := expectation_reason(finding):
            yield from hang(INDENT, reason, width, style="dim")
        return
    if finding.blame:
        yield from _blame(finding.blame, width, verbose)
    numbers = finding.numbers + (finding.details if verbose else ())
    if numbers:
        yield []
        column = max(cells(label) for label, _ in numbers) + 3
        for label, text in numbers:
            yield from hang(INDENT + pad(label, column), text, width, style, style)
    slots = [(slot, text) for slot in SLOTS if (text := getattr(finding, slot))]
    if slots:
        yield []
    for slot, text in slots:
        above = next((f.code for f in told if len(text) > SHORT and getattr(f, slot) == text and not f.expected), "")
        words = text if slot == "help" else refill(text)  # help offers alternatives and code: its lines mean something
        words = f"as for {above} above" if above else words
        yield from hang(INDENT + pad(slot, 9), words, width, "dim" if finding.expected else "bold", style)
        if slot == "help" and finding.change:
            yield from _change(
                finding.change, width, any(f.change and f.change.diff == finding.change.diff for f in told)
            )


def _change(change: Change, width: int, told: bool) -> Iterator[Line]:
    """A diff below the help, unless it was told above, and what was seen with it. Code is wrapped only if it has to be."""
    inner = INDENT + " " * 9
    if told:
        yield from hang(f"{inner}tried: ", f"with the same change {change.tried}", width)
        return
    yield from hang(inner, f"{change.file}:{change.line}", width, "", "cyan")
    for line in change.diff.splitlines():
        sign, code = line[0], line[1:].strip()
        yield from hang(f"{inner}{sign} ", code, width, DIFF[sign], DIFF[sign])
    yield from hang(f"{inner}tried: ", change.tried, width)


def _place(path: str, finding: Finding, verbose: int) -> str:
    """Where: the case file, the backends, the gradients; what a finding does not name is left out."""
    parts = [path, _names(finding.backends, verbose)]
    if finding.objectives or finding.parameters:
        objectives, parameters = _names(finding.objectives, verbose) or "*", _names(finding.parameters, verbose) or "*"
        parts.append(f"{derivative(finding.order, objectives).replace(' ', NBSP, 1)} /{NBSP}d{NBSP}{parameters}")
    return " · ".join(filter(None, parts))


def _names(names: tuple[str, ...], verbose: int) -> str:
    if len(names) > MANY_NAMES and not verbose:
        more = f"and {len(names) - MANY_NAMES + 2} more (-v names them)".replace(" ", NBSP)
        return f"{', '.join(names[: MANY_NAMES - 2])} {more}"
    return ", ".join(names)


def _blame(blame: Blame, width: int, verbose: int) -> Iterator[Line]:
    place = ":".join(str(part) for part in (blame.file, blame.line or None, blame.column) if part is not None)
    op = f"  ({blame.op})" if blame.op and (verbose or not blame.text) else ""
    text = (blame.text.strip() + op).strip()
    beside = cells(INDENT + place) + 2 + cells(text) <= width
    if beside:
        yield from hang(f"{INDENT}{place}  ", text, width, "cyan")
    else:  # code reads badly in a narrow column
        yield from hang(INDENT, place, width, style="cyan")
        yield from hang(f"{INDENT}  ", text, width) if text else ()


def _backends(report: Report, width: int) -> Iterator[Line]:
    column = max([0, *(cells(backend.name) for backend in report.backends)]) + 2
    for b in report.backends:
        facts = f"{b.framework} {b.framework_version}, Python {b.python_version}, {b.environment} environment"
        effort = f"{_duration(b.seconds)}, {b.forward_evaluations} forward evaluations"
        yield from hang(pad(b.name, column), f"{facts}, {effort}" if b.environment else "never started", width, "bold")
    if report.backends:
        yield []


def _closing(report: Report, width: int) -> Iterator[Line]:
    for warning in report.warnings:
        yield from hang("warning: ", warning, width, "bold yellow")
    if report.rerun.strip():
        yield from command_lines("rerun: ", report.rerun, width)
    yield from hang(f"exit {report.exit_code}: ", EXIT_MEANING.get(report.exit_code, "unknown"), width)
