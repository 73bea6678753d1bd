"""What a rule sees, and what it says: the Scene (evidence, and a laboratory to try things in) and the Claim."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.laboratory import Laboratory
from gradcheck.model import WHOLE, Blame, Case, Finding, Severity, Verdict, Wrong
from gradcheck.session import Arrays
from gradcheck.source import cell_name, parse, text_of

NAMED = 3  # wrong entries that a line names


@dataclass
class Scene:
    """One case after all its backends were examined.

    lab: sessions for counterfactuals; notes: what rules share; taken: ids of the checks that a rule has claimed already.
    """

    case: Case
    arrays: Arrays
    results: Sequence[BackendEvidence]
    lab: Laboratory
    notes: dict[str, object] = field(default_factory=dict)
    second: Sequence[BackendEvidence] = ()  # of second order, seen by the rule of that name alone
    taken: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)  # rules that failed themselves, in words for the user

    def checks(self, *verdicts: Verdict) -> list[Evidence]:
        return [e for r in self.results for e in r.checks if e.check.verdict in verdicts]

    def unexplained(self, *verdicts: Verdict) -> list[Evidence]:
        """Checks that no rule has claimed so far."""
        return [e for e in self.checks(*verdicts) if id(e) not in self.taken]

    def passing(self, like: Evidence) -> list[str]:
        """The backends that pass on the same objective and parameter."""
        pair = (like.check.objective, like.check.parameter)
        passed = self.checks(Verdict.PASS)
        return [e.check.backend for e in passed if (e.check.objective, e.check.parameter) == pair]

    def with_code(self, code: str) -> list[Evidence]:
        return [e for r in self.results for e in r.checks if code in e.check.codes]


@dataclass
class Claim:
    """Checks that share a cause. describe: makes the finding of any part of them (expected ones are told apart)."""

    code: str
    checks: list[Evidence]
    describe: Callable[[list[Evidence]], Finding]


def finding(
    code: str, checks: Sequence[Evidence], title: str, severity: Severity = Severity.ERROR, **slots: object
) -> Finding:
    """A finding about these checks; their backends, objectives and parameters in the order of the checks.

    -v lists the wrong entries of the worst of them.
    """
    return Finding(
        code,
        title,
        severity,
        backends=unique(e.check.backend for e in checks),
        objectives=unique(e.check.objective for e in checks),
        parameters=unique(e.check.parameter for e in checks),
        details=entries(worst(checks)),
        **slots,  # type: ignore[arg-type]  # the slots' own types are checked where they are filled
    )


def unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def by(checks: Iterable[Evidence], key: Callable[[Evidence], object]) -> list[list[Evidence]]:
    """Groups of checks with equal keys, in order of first appearance."""
    groups: dict[object, list[Evidence]] = {}
    for evidence in checks:
        groups.setdefault(key(evidence), []).append(evidence)
    return list(groups.values())


def alike(checks: Iterable[Evidence], kind: Callable[[Evidence], object]) -> list[list[Evidence]]:
    """Groups of one kind, over all backends on which the very same checks are of that kind: one cause, one finding."""
    of_kind: dict[object, list[Evidence]] = {}
    for group in by(checks, lambda e: (e.check.backend, kind(e))):
        pairs = frozenset((e.check.objective, e.check.parameter) for e in group)
        of_kind.setdefault((kind(group[0]), pairs), []).extend(group)
    return list(of_kind.values())


def worst(checks: Sequence[Evidence]) -> Evidence:
    """The check with the largest relative error."""
    return max(checks, key=lambda e: e.check.max_rel_error if e.check.max_rel_error is not None else -1.0)


def number(value: float | None) -> str:
    """A number as a reader wants it: four digits, and 0 said to be exact."""
    if value is None:
        return "unknown"
    return "0 exactly" if value == 0 else f"{value:.4g}"


def numbers(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """The lines analytic, reference (with its step ladder) and unrolled of one check."""
    check, rows = evidence.check, []
    if check.worst is not None:
        analytic = "none" if evidence.gradient.array is None else number(check.worst.analytic)
        rows.append(("analytic", f"{analytic}   {place(check.parameter, check.worst.index)}"))
        error = f" +- {check.error_bound:.1g}" if check.error_bound else ""
        rows.append((reference_name(evidence), f"{number(check.worst.reference)}{error}{ladder(evidence)}"))
        if evidence.unrolled is not None and evidence.unrolled.array is not None:
            value = float(np.asarray(evidence.unrolled.array)[check.worst.index])
            same = value == check.worst.analytic
            state = (
                "right by its own differences"
                if evidence.unrolled_passes
                else "the same"
                if same
                else "not right either"
            )
            rows.append(("unrolled", f"{number(value)}   {state}"))
        rows.append(("relative error", f"{check.max_rel_error:.2g} of the largest entry"))
        if check.wrong is not None:
            rows.append(("wrong entries", extent(check.parameter, check.wrong)))
        if (found := evidence.notes.get("timeline")) is not None:
            rows.append(("time steps", f"{found.line()}   ({found.legend()})"))
    elif evidence.comparison is not None and evidence.estimate is not None:
        c = evidence.comparison
        rows.append(("analytic", f"{number(c.analytic)}   along a random direction"))
        rows.append((reference_name(evidence), f"{number(c.reference)} +- {c.bound:.1g}"))
    elif evidence.estimate is not None and np.isfinite(evidence.estimate.value[evidence.objective_index]):
        i = evidence.objective_index
        gradient = evidence.gradient
        rows.append(("analytic", shown(gradient.array)))
        value, bound = float(evidence.estimate.value[i]), float(evidence.estimate.bound[i])
        rows.append((reference_name(evidence), f"{number(value)} +- {bound:.1g}   along a random direction"))
        if evidence.unrolled is not None and evidence.unrolled.array is not None:
            state = "right by its own differences" if evidence.unrolled_passes else "not right either"
            rows.append(("unrolled", f"there, and {state}"))
    return (*rows, *forward_mode(evidence))


def forward_mode(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """What forward mode gives where the check did not pass; nothing where it was not asked."""
    if "forward_mode" not in evidence.notes:
        return ()
    value, words = evidence.notes["forward_mode"]
    return (("forward mode", f"{number(value)} along the probe: {words}" if value is not None else f"none: {words}"),)


def shown(array: np.ndarray | None) -> str:
    """What there is of a gradient that was not compared."""
    if array is None:
        return "none"
    return "not finite" if not np.isfinite(array).all() else "there" if array.any() else "0 exactly"


def reference_name(evidence: Evidence) -> str:
    return "complex step" if evidence.estimate and evidence.estimate.method == "complex step" else "finite difference"


def ladder(evidence: Evidence) -> str:
    """How the differences behaved from step to step, for the entry shown."""
    single = evidence.notes.get("entry_ladder")
    if single is None or len(single.ladder) < 2:
        return ""
    i = evidence.objective_index
    (h1, d1), (h2, d2) = single.ladder[-2:]
    change = abs(float(d1[i]) - float(d2[i]))
    return f"   ({h1:.1e} -> {h2:.1e}: changes by {change:.1e})"


def extent(parameter: str, wrong: Wrong) -> str:
    """Which entries are wrong, in one line: how many, where, what they share."""
    seen, looked = wrong.sample
    names = [place(parameter, e.index) for e in wrong.entries]
    if wrong.region == WHOLE and wrong.exact:
        said = f"all {wrong.size}" if wrong.count == wrong.size else f"{wrong.count} of {wrong.size}"
    elif wrong.region:
        where = wrong.region if wrong.region == WHOLE else f"{wrong.region} of {parameter}"
        where += f" ({wrong.size} entries)"
        said = where if not wrong.exact else f"{'all' if wrong.count == wrong.size else wrong.count} of {where}"
    elif wrong.exact:
        said = f"{wrong.count} of {wrong.size}"
        if wrong.count > 1:
            said += f": {', '.join(names[:NAMED])}" + (", ... (see -v)" if wrong.count > NAMED else "")
    else:
        said = f"about {wrong.count} of {wrong.size}" if seen else f"at least {wrong.count} of {wrong.size}"
    if not wrong.exact and looked:
        said += f": {seen} of {looked} looked at are wrong"
    return said + (f"; {wrong.shared}" if wrong.shared else "")


def entries(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """A line for each wrong entry that was looked at, beside the worst."""
    check = evidence.check
    listed = check.wrong.entries if check.wrong is not None and len(check.wrong.entries) > 1 else ()
    return tuple(
        (place(check.parameter, e.index), f"analytic {number(e.analytic)}, reference {number(e.reference)}")
        for e in listed
    )


def place(parameter: str, index: Sequence[int]) -> str:
    return f"{parameter}[{', '.join(map(str, index))}]" if index else parameter


def relative(path: Path | str) -> str:
    """A path as a reader in the working directory would type it."""
    if cell := cell_name(path):
        return cell
    path = Path(path)
    here = Path.cwd()
    return (
        str(path.relative_to(here))
        if path.is_relative_to(here)
        else os.path.relpath(path)
        if not path.is_absolute()
        else str(path)
    )


def line_blame(path: Path | str, line: int, op: str = "") -> Blame | None:
    """The blame for a line of a file; None if the file or the line is not there."""
    try:
        text = text_of(path).splitlines()[line - 1].strip()
    except (OSError, IndexError):
        return None
    return Blame(relative(path), line, None, op, text)


def step_blame(case: Case) -> Blame | None:
    """The step's own def line, or its first equation: where to look when no line is known to be the culprit."""
    if case.equations:
        return line_blame(case.step_file, case.equations[0].line)
    function = step_function(case)
    return line_blame(case.step_file, function.lineno) if function else None


def first_use(case: Case, name: str) -> Blame | None:
    """The first line of the step that reads an input."""
    root = step_tree(case) if case.equations else step_function(case)
    uses = (
        [n for n in ast.walk(root) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
        if root
        else []
    )
    if not uses:
        return None
    use = min(uses, key=lambda n: (n.lineno, n.col_offset))
    blame = line_blame(case.step_file, use.lineno, name)
    return Blame(blame.file, blame.line, use.col_offset + 1, blame.op, blame.text) if blame else None


def step_tree(case: Case) -> ast.Module | None:
    """What the step's file says, as syntax: of a step of equations these, each where it stands in the case file."""
    try:
        if case.equations:
            rows = [ast.increment_lineno(parse(e.text), e.line - 1) for e in case.equations]
            return ast.Module([statement for row in rows for statement in row.body], [])
        return parse(text_of(case.step_file))
    except (OSError, SyntaxError, ValueError):
        return None


def step_function(case: Case) -> ast.FunctionDef | None:
    tree = step_tree(case)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree else []
    return next((n for n in functions if n.name == case.step_function), None)
