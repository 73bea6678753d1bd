"""The checks of one case as a table: a row per gradient, a column per backend; in a cell verdict and relative error.

A verdict in capitals needs action, one in parentheses is expected; a row that needs action starts with "!".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest

from gradcheck.model import CaseReport, Check, Verdict
from gradcheck.reports._layout import Line, Span, cells, hang, pad, wrap
from gradcheck.reports._shared import derivative, outcome

GAP = 2
GUTTER = 2
MANY_ROWS = 40  # beyond this, gradients that are right everywhere share one row unless -v
WIDE_NAME = 16

WORDS = {
    Verdict.PASS: "pass",
    Verdict.NULL: "NULL",
    Verdict.DISCONNECTED: "DISCONNECTED",
    Verdict.NONFINITE: "NOT FINITE",
    Verdict.MISMATCH: "WRONG",
    Verdict.NONDETERMINISTIC: "UNREPEATABLE",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.NOT_RUN: "not run",
}
TIGHT_WORDS = WORDS | {
    Verdict.DISCONNECTED: "DISCONN.",
    Verdict.NONDETERMINISTIC: "UNREPEAT.",
    Verdict.INCONCLUSIVE: "inconcl.",
}
STYLES = {"passed": "dim", "failed": "bold red", "expected": "dim", "inconclusive": "yellow", "not_run": "yellow"}


@dataclass(frozen=True, slots=True)
class Row:
    """One gradient, or several that are right everywhere, across the backends."""

    derivative: str  # "d hidden", of second order "d2 hidden"
    name: str  # of the parameter
    checks: dict[str, Check]


def short(value: float, tight: bool = True, digits: int = 0) -> str:
    """A number as briefly as a cell allows; a zero is shown as one only if it is exact."""
    if value == 0:
        return "0" if tight else "0 exactly"
    return f"{value:.{0 if tight else digits}e}"


def cell(check: Check | None, tight: bool, verbose: int) -> Span:
    if check is None:
        return "-", "dim"
    text = (TIGHT_WORDS if tight else WORDS)[check.verdict]
    if check.codes == ("GC703",):  # the error is that of another gradient than the one that is meant
        text += " surrog." if tight else " surrogate"
    elif check.max_rel_error is not None and check.verdict in (Verdict.PASS, Verdict.MISMATCH):
        text += " " + short(check.max_rel_error, tight, digits=int(check.failing))
    if verbose and check.verdict is Verdict.PASS and check.detection_limit is not None:
        text += f", sees {short(check.detection_limit)}"
    kind = outcome(check)
    return f"({text.lower()})" if kind == "expected" else text, STYLES[kind]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table that has been laid out.

    grouped: labels are parameters below a line that names their objective; tight: cells are abbreviated.
    """

    rows: list[Row]
    labels: list[str]
    label_width: int
    columns: dict[str, int]  # backend -> width
    grouped: bool
    tight: bool
    width: int
    verbose: int

    @property
    def fits(self) -> bool:
        return GUTTER + self.label_width + sum(GAP + column for column in self.columns.values()) <= self.width


def table(case: CaseReport, width: int, verbose: int) -> list[Line]:
    """Lines of at most `width` columns: in full if there is room, else by objective, else tight, else in blocks."""
    if not case.checks:
        return []
    rows = _rows(case.checks)
    if len(rows) > MANY_ROWS and not verbose:
        rows = list(_folded(rows))
    backends = list(dict.fromkeys(check.backend for check in case.checks))
    layouts = ((False, False), (True, False), (True, True))
    grids = [_grid(rows, backends, grouped, tight, width, verbose) for grouped, tight in layouts]
    grid = next((grid for grid in grids if grid.fits), grids[-1])
    blocks = [[*_block(grid, backends)] for backends in _split(grid.columns, width - GUTTER - grid.label_width)]
    return [line for block in blocks for line in [*block, []]][:-1] + list(_legend(case.checks, width, verbose))


def _rows(checks: Sequence[Check]) -> list[Row]:
    rows: dict[tuple[str, str], dict[str, Check]] = {}
    objectives = list(dict.fromkeys(check.objective for check in checks))
    for check in sorted(checks, key=lambda check: (check.order, objectives.index(check.objective))):
        rows.setdefault((derivative(check.order, check.objective), check.parameter), {})[check.backend] = check
    return [Row(above, parameter, by_backend) for (above, parameter), by_backend in rows.items()]


def _folded(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that are right everywhere as one row per objective, with the largest error of each backend."""
    for above, group in groupby(rows, key=lambda row: row.derivative):
        right: list[Row] = []
        rest: list[Row] = []
        for row in group:
            passed = all(check.verdict is Verdict.PASS for check in row.checks.values())
            (right if passed else rest).append(row)
        yield from rest
        if right:
            checks = sorted((c for row in right for c in row.checks.values()), key=lambda c: c.max_rel_error or 0.0)
            label = f"({len(right)} others, largest)" if rest else f"(all {len(right)}, largest)"
            yield Row(above, label, {check.backend: check for check in checks})


def _grid(rows: list[Row], backends: Sequence[str], grouped: bool, tight: bool, width: int, verbose: int) -> Grid:
    columns = {}
    for name in backends:
        texts = [cell(row.checks.get(name), tight, verbose)[0] for row in rows]
        columns[name] = max(map(cells, [*_header(name), *texts]))
    labels = [row.name if grouped else f"{row.derivative} / d {row.name}" for row in rows]
    column = max([6, *(n for n in map(cells, labels) if n <= width // 3 or not grouped)])
    return Grid(rows, labels, column, columns, grouped, tight, width, verbose)


def _header(name: str) -> list[str]:
    """The name of a backend on as many lines as it needs, broken after hyphens."""
    if cells(name) <= WIDE_NAME:
        return [name]
    return [line.replace("- ", "-") for line in wrap(name.replace("-", "- "), WIDE_NAME)]


def _split(columns: dict[str, int], room: int) -> list[list[str]]:
    """As many columns side by side as fit; at least one."""
    blocks: list[list[str]] = [[]]
    for name in columns:
        if blocks[-1] and sum(GAP + columns[n] for n in [*blocks[-1], name]) > room:
            blocks.append([])
        blocks[-1].append(name)
    return blocks


def _block(grid: Grid, backends: Sequence[str]) -> Iterator[Line]:
    yield from _header_lines(grid, backends)
    above = ""
    for row, label in zip(grid.rows, grid.labels, strict=True):
        if grid.grouped and row.derivative != above:
            above = row.derivative
            yield from ([(line, "")] for line in wrap(f"{above} / d", grid.width))
        alarming = any(name in row.checks and outcome(row.checks[name]) == "failed" for name in backends)
        mark = pad("!" if alarming else "", GUTTER)
        if cells(label) > grid.label_width:  # too long for its column: a line of its own, never cut, never ambiguous
            for line in wrap(label, grid.width - GUTTER):
                yield [(mark, "bold red"), (line, "")]
                mark = " " * GUTTER
            label = ""
        spans = [cell(row.checks.get(name), grid.tight, grid.verbose) for name in backends]
        yield [(mark, "bold red"), (pad(label, grid.label_width), ""), *_columns(grid, backends, spans)]


def _header_lines(grid: Grid, backends: Sequence[str]) -> Iterator[Line]:
    corner = "relative error" if grid.label_width >= 14 else ""
    for names in zip_longest(*(_header(name) for name in backends), fillvalue=""):
        label = (" " * GUTTER + pad(corner, grid.label_width), "dim")
        yield [label, *_columns(grid, backends, [(name, "bold") for name in names])]
        corner = ""


def _columns(grid: Grid, backends: Sequence[str], spans: Sequence[Span]) -> Iterator[Span]:
    for name, (text, style) in zip(backends, spans, strict=True):
        yield " " * GAP, ""
        yield pad(text, grid.columns[name]), style


def _legend(checks: Sequence[Check], width: int, verbose: int) -> Iterator[Line]:
    if any(outcome(check) == "expected" for check in checks):
        yield from hang("  ( )   ", "expected", width, "dim", "dim")
    if verbose and any(check.verdict is Verdict.PASS and check.detection_limit is not None for check in checks):
        yield from hang("  sees  ", "the smallest error in one entry that would have been seen", width, "dim", "dim")
