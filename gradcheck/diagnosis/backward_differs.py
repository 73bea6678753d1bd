"""GC202 and GC201: the reverse pass does not have what the forward pass had.

A block that is run again for its gradient may draw other noise than it did (GC202), and a value that a reverse rule keeps may be
written over in a way that the framework does not see (GC201). Shown by a reverse pass on what the forward pass had: the gradient
is then right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from gradcheck.diagnosis.blame import Node
from gradcheck.diagnosis.counterfactual import held_against
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, unique, worst
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Gradient, Verdict


@dataclass
class Seen:
    """What one backend's reverse pass has not as the forward had it. overwritten: (op that keeps it, op that writes or None)."""

    redrawn: list[Node] = field(default_factory=list)
    overwritten: list[tuple[Node, Node | None]] = field(default_factory=list)
    composed: dict[tuple[str, str], Gradient] = field(default_factory=dict)


def backward_differs(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        seen = watched(scene, group[0].check.backend)
        if not seen.composed:
            continue
        agreed = held_against(scene, group, seen.composed)
        if agreed.explained and seen.redrawn:
            yield Claim("GC202", agreed.explained, partial(redrawn_finding, seen, agreed.words))
        elif agreed.explained:
            yield Claim("GC201", agreed.explained, partial(overwritten_finding, seen, agreed.words))


def watched(scene: Scene, backend: str) -> Seen:
    """Watch one reverse pass, and take the gradient on what the forward pass had if that is not the same."""
    seen = Seen()
    try:
        with scene.lab.session(scene.case, backend, scene.arrays) as session:
            told = session.discrepancies() if session.can("discrepancies") else []
            if told:
                nodes = [Node.of(index, node) for index, node in enumerate(session.nodes())]
                seen.redrawn = [nodes[d["node"]] for d in told if d["kind"] == "redrawn"]
                seen.overwritten = [
                    (nodes[d["node"]], None if d["by"] is None else nodes[d["by"]])
                    for d in told
                    if d["kind"] == "overwritten"
                ]
                seen.composed = session.composed()
    except BackendError:
        pass
    return seen


def redrawn_finding(seen: Seen, words: str, checks: list[Evidence]) -> Finding:
    again = unique(f"{node.op} at {node.place}" for node in seen.redrawn)
    return finding(
        "GC202",
        checks,
        "gradient is wrong because the backward pass redraws the noise",
        numbers=numbers(worst(checks)),
        because=f"the reverse pass runs {' and '.join(again[:2])} again, from another random state than the forward pass did: it "
        "differentiates another draw",
        proof=f"with the draws of the forward pass in the reverse pass, {words}",
        help="let what is run again for its gradient begin from the random state that it had, or draw outside of it and pass the "
        "draws in",
        whose="the step: it asks for its random state not to be kept",
        blame=seen.redrawn[0].blame,
    )


def overwritten_finding(seen: Seen, words: str, checks: list[Evidence]) -> Finding:
    keeper, writer = seen.overwritten[0]
    by_whom = f" by {writer.op} at {writer.place}" if writer is not None else ""
    return finding(
        "GC201",
        checks,
        f"the gradient is wrong because a value that {keeper.op} keeps for it is written over",
        numbers=numbers(worst(checks)),
        because=f"the reverse rule of {keeper.op} at {keeper.place} reads a value that was changed{by_whom} after the forward "
        "pass used it, unseen by the framework",
        proof=f"with that value as the forward pass had it, {words}",
        help="write the change into a new value, or in a way that the framework sees, so that it refuses",
        note=f"the rule of {keeper.op} itself is right",
        whose="the step",
        blame=(writer.blame if writer is not None else None) or keeper.blame,
    )
