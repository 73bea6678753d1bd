"""GC501 and GC502: equal calls give different answers, so no difference can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gradcheck.diagnosis.blame import Node, first_line, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, step_blame, unique
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict

WORDS = {
    "GC501": (
        "the forward pass changes between equal calls",
        "two evaluations at the same point gave different objectives",
    ),
    "GC502": (
        "the gradient changes between equal calls",
        "two gradients at the same point differ by more than rounding",
    ),
}


def not_repeatable(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.checks(Verdict.NONDETERMINISTIC), lambda e: e.check.codes[0]):
        for evidence in group:
            if any(n.again for n in unseeded(scene, evidence.check.backend)):
                evidence.check = replace(evidence.check, codes=(*evidence.check.codes, "GC202"))
        yield Claim(group[0].check.codes[0], group, lambda part: describe(scene, part))


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    code = checks[0].check.codes[0]
    title, because = WORDS[code]
    changing = unseeded(scene, checks[0].check.backend)
    again = [n for n in changing if n.again]
    if changing:
        names = " and ".join(unique(f"{n.op} at {n.place}" for n in changing[:2]))
        because += (
            f"; {names} {'reads' if len(changing) == 1 else 'read'} a state that no key or seed of the case decides"
        )
    if again:
        times = "once" if again[0].again == 1 else f"{again[0].again} times"
        because += (
            f"; the gradient's program draws {times} more than the forward's: the backward pass draws again (GC202)"
        )
    return finding(
        code,
        checks,
        title,
        because=because,
        help="draw from an explicit key or seed (in a case file: noise:), so that every evaluation, and what the backward pass "
        "computes again, draws the same",
        note="gradients that pass elsewhere are not affected",
        whose="the step: it reads something that changes, such as a generator or a counter of its own",
        blame=first_line(changing) or step_blame(scene.case),
    )


def unseeded(scene: Scene, backend: str) -> list[Node]:
    """The draws from a state of the process, and the calls into code that cannot be looked at."""
    nodes = nodes_of(scene, backend, ("draw", "opaque"), active=False)
    return [n for n in nodes if n.stateful] or [n for n in nodes if n.kind == "opaque"]
