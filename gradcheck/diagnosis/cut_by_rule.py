"""GC103 where an op tells the framework that it is not connected to an input that moves it.

Shown by looking at the op alone: it moves with the input and its rule gives nothing. With the derivative of its own forward in
the place of the rule the gradient is right, if the op is all that cuts the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gradcheck.diagnosis.blame import Look, called, inspected
from gradcheck.diagnosis.counterfactual import Agreement, held_against
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict


def cut_by_rule(scene: Scene) -> Iterable[Claim]:
    suspects = [e for e in scene.unexplained(Verdict.DISCONNECTED) if e.check.codes[0] == "GC103"]
    for group in by(suspects, lambda e: e.check.backend):
        found = inspected(scene, group[0].check.backend)
        cutting = [look for look in found.wrong if look.cuts]
        seen = held_against(scene, group, found.mended) if cutting and found.mended else Agreement([], "")
        if seen.explained:
            yield Claim("GC103", seen.explained, partial(describe, scene, cutting[0], seen))


def describe(scene: Scene, look: Look, seen: Agreement, checks: list[Evidence]) -> Finding:
    node, own = look.node, look.node.kind == "custom"
    return finding(
        "GC103",
        checks,
        f"no gradient arrives because {node.op} says that it does not depend on its input",
        numbers=numbers(worst(checks)),
        because=f"{called(node)}, alone and at the values it has here: its reverse rule gives {look.words()}",
        proof=f"with the derivative of its own forward in place of the rule, {seen.words_for(checks)}",
        help="correct what the op says of its connections, and its reverse rule" if own else "write it with other ops",
        whose=f"the reverse rule of {node.op}" if own else "the framework's rule of the op",
        blame=node.blame or step_blame(scene.case),
    )
