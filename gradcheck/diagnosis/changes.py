"""What to change in the case file or the step, as a diff. Only a change that was tried is shown: with it, the checks pass.

A maker turns the text of a file into a better one, or gives nothing. It need not be sure that its change helps: that is tried.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gradcheck.case_file import CaseFileError, load
from gradcheck.case_source import read
from gradcheck.data import arrays as seeded_arrays
from gradcheck.diagnosis.scene import Scene, relative, step_tree, worst
from gradcheck.errors import BackendError, GradcheckError
from gradcheck.evidence import Evidence
from gradcheck.examine import Examination, float64_twin
from gradcheck.model import Case, Change, Finding, Placement, Verdict
from gradcheck.session import Arrays
from gradcheck.source import argument_of, replaced, segment

MOST = 3  # changes that are tried for one finding
OPTION = "truncate_gradient"


@dataclass(frozen=True)
class Draft:
    """A file with another text, not tried yet."""

    path: Path
    before: str
    after: str


Maker = Callable[[Scene, Sequence[Evidence], Finding], Iterable[Draft]]


def prescribed(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Change | None:
    """The first change that puts these checks right, or None."""
    maker = MAKERS.get(found.code)
    if (
        maker is None or scene.case.in_process
    ):  # a model that lives here was not built from a file that could be another
        return None
    try:
        for draft in list(maker(scene, checks, found))[:MOST]:
            if draft.after != draft.before and (words := tried(scene, checks, draft)):
                return as_diff(draft, words)
    except (OSError, SyntaxError, ValueError):  # a file that is not there, or not what it was
        pass
    return None


def tried(scene: Scene, checks: Sequence[Evidence], draft: Draft) -> str:
    """What was seen with the change made; "" unless all of these checks then pass."""
    name = worst(checks).check.backend
    pairs = {(e.check.objective, e.check.parameter) for e in checks if e.check.backend == name}
    try:
        case, arrays, widen = changed(scene, draft)
        with scene.lab.session(case, name, arrays, widen=widen) as session:
            seen = Examination(name, session, None, case.rtol, case.atol).run().checks
    except (BackendError, CaseFileError, GradcheckError, ValueError):
        return ""
    now = [e.check for e in seen if (e.check.objective, e.check.parameter) in pairs]
    if len(now) < len(pairs) or any(c.verdict is not Verdict.PASS or c.codes for c in now):
        return ""
    error = max(c.max_rel_error or 0.0 for c in now)
    who = f"all {len(now)} of these gradients pass" if len(now) > 1 else "the gradient passes"
    return f"{who} on {name}, to {error:.0e}"


def changed(scene: Scene, draft: Draft) -> tuple[Case, Arrays, bool]:
    """The case as it is with the change, its inputs, and whether a native model is to be widened."""
    in_case_file = draft.path == scene.case.path
    frameworks = {backend.name for backend, _ in scene.lab.catalog.values()}
    case = load(scene.case.path, frameworks, text=draft.after if in_case_file else None)
    case = replace(case, seed=scene.case.seed, step_source="" if in_case_file else draft.after)
    if case.native:
        return case, {}, scene.case.dtype == "float32"
    arrays = seeded_arrays(case)
    if case.dtype == "float32" and not case.draws_in_step:
        case, arrays = float64_twin(case, arrays)
    return case, arrays, False


def as_diff(draft: Draft, words: str) -> Change:
    """The lines that change, and the number of the first."""
    before, after = draft.before.splitlines(), draft.after.splitlines()
    lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    first = re.match(r"@@ -(\d+)", lines[0])
    diff = "\n".join(line for line in lines if not line.startswith("@@"))
    return Change(relative(draft.path), int(first.group(1)) if first else 1, diff, words)


# --- changes to the case file -----------------------------------------------------------------------------------------


def fresh_draws(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Iterator[Draft]:
    """Noise drawn in the step, or once for all steps, as a sequence: drawn for every step outside the loop."""
    case = scene.case
    source = read(case.path)
    text = case.path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for noise in case.inputs:
        if noise.placement in (Placement.IN_STEP, Placement.NON_SEQUENCE):
            at = source.line(("noise", noise.name, "placement")) - 1
            lines[at] = re.sub(rf"(placement:\s*){noise.placement}\b", r"\1sequence", lines[at])
    yield Draft(case.path, text, "".join(lines))


def whole_history(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Iterator[Draft]:
    """Without the option that truncates: in the case file, or where a native model's own file says it."""
    for path in (scene.case.path, scene.case.step_file):
        text = path.read_text(encoding="utf-8")
        told = rf"({OPTION}[\"']?\s*[:=]\s*)\d+"
        if len(re.findall(told, text)) == 1:
            yield Draft(path, text, re.sub(told, r"\1-1", text))


# --- changes to the step ----------------------------------------------------------------------------------------------


def let_through(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Iterator[Draft]:
    """Without the call that stops the gradient."""
    if found.blame is None:
        return
    path, text, tree = step_file(scene)
    names = {found.blame.op, "stop_gradient"}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called_name(n) in names]
    own = [c for c in calls if c.lineno <= found.blame.line <= (c.end_lineno or c.lineno)]
    for call in own:
        inner = call.args[0] if call.args else call.func.value if isinstance(call.func, ast.Attribute) else None
        if inner is not None:
            yield Draft(path, text, replaced(text, call, argument_of(text, inner)))


def double_where(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Iterator[Draft]:
    """A `where` inside the unselected branch, too: its singular op then gets a harmless argument on the other side."""
    birth = worst(checks).notes.get("birth")
    if birth is None or birth.select is None:
        return
    path, text, tree = step_file(scene)
    for select in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.args) == 3):
        if not (select.lineno <= birth.select.line <= (select.end_lineno or 0)):
            continue
        condition, chooser = segment(text, select.args[0]), segment(text, select.func)
        for side in (1, 2):
            for argument in singular_arguments(select.args[side], birth.node.line):
                one = "1.0"
                inner = segment(text, argument)
                chosen = (inner, one) if side == 1 else (one, inner)
                yield Draft(path, text, replaced(text, argument, f"{chooser}({condition}, {chosen[0]}, {chosen[1]})"))


def singular_arguments(branch: ast.expr, line: int) -> Iterator[ast.expr]:
    """The arguments of the calls, the divisors and the bases of powers on a line of an unselected branch, the outermost first."""
    for node in ast.walk(branch):
        if not (getattr(node, "lineno", line) <= line <= (getattr(node, "end_lineno", line) or line)):
            continue
        if isinstance(node, ast.Call) and node.args:
            yield node.args[0]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield node.right
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            yield node.left


def own_derivative(scene: Scene, checks: Sequence[Evidence], found: Finding) -> Iterator[Draft]:
    """Without a custom reverse rule: the framework derives the forward itself."""
    culprit = worst(checks).notes.get("culprit")
    if culprit is None or culprit.look.node.kind != "custom":
        return
    path, text, tree = step_file(scene)
    file, _, line = culprit.look.node.defined.rpartition(":")
    if not file or Path(file).resolve() != path.resolve():
        return
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.decorator_list):
        first = min(d.lineno for d in function.decorator_list)
        if first <= int(line) <= (function.end_lineno or first):
            gone = [(d.lineno, d.end_lineno or d.lineno) for d in function.decorator_list if "custom" in ast.unparse(d)]
            gone += [
                (n.lineno, n.end_lineno or n.lineno)
                for n in ast.walk(tree)
                if isinstance(n, ast.Expr) and re.match(rf"{function.name}\.def(vjp|jvp|jvps)\(", ast.unparse(n))
            ]
            left = [
                row
                for number, row in enumerate(text.splitlines(keepends=True), 1)
                if not any(a <= number <= b for a, b in gone)
            ]
            yield Draft(path, text, "".join(left))


def step_file(scene: Scene) -> tuple[Path, str, ast.Module]:
    """(path, text, syntax) of where the step is written: of equations the case file. Raises OSError or ValueError."""
    path = scene.case.path if scene.case.equations else scene.case.step_file
    tree = step_tree(scene.case)
    if tree is None:
        raise ValueError(f"{path} cannot be read as what it was")
    return path, path.read_text(encoding="utf-8"), tree


def called_name(call: ast.Call) -> str:
    return (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )


MAKERS: dict[str, Maker] = {
    "GC101": fresh_draws,
    "GC202": fresh_draws,
    "GC203": whole_history,
    "GC205": let_through,
    "GC206": own_derivative,
    "GC301": double_where,
    "GC701": fresh_draws,
}
