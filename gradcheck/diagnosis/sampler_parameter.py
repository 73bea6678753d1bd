"""GC102 where a parameter of a distribution is differentiated: the sampler has no reverse rule by it.

Seen in the graph: the input moves what a draw is given as its distribution. Where the draw is continuous, the derivative of the draw
itself, with the same random bits, is put in the place of the missing rule: that the gradient is right then is the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from gradcheck.diagnosis.blame import Node, first_line, nodes_of
from gradcheck.diagnosis.counterfactual import held_against
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, unique
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Gradient, Verdict

# how a draw is written with the parameters outside of the sampler
OUTSIDE = {
    "normal": "loc + scale * normal(0, 1)",
    "uniform": "low + (high - low) * uniform(0, 1)",
    "exponential": "scale * exponential(1)",
    "lognormal": "exp(mean + sigma * normal(0, 1))",
    "cauchy": "loc + scale * cauchy(0, 1)",
    "laplace": "loc + scale * laplace(0, 1)",
    "gumbel": "loc + scale * gumbel(0, 1)",
    "logistic": "loc + scale * logistic(0, 1)",
    "multivariate_normal": "mean + dot(cholesky(cov), normal(0, 1))",
}


@dataclass(frozen=True)
class Entry:
    """The draws that a check's parameter enters; whether the objective stands still; what the run with their derivative showed."""

    draws: tuple[Node, ...]
    flat: bool
    words: str

    @property
    def key(self) -> object:
        return tuple(n.number for n in self.draws), self.flat


def sampler_parameter(scene: Scene) -> Iterable[Claim]:
    gone = [e for e in scene.unexplained(Verdict.NULL) if e.check.codes[0] == "GC102"]
    for group in by(gone, lambda e: e.check.backend):
        entered = {id(e): draws for e in group if (draws := draws_of(scene, e))}
        checks = [e for e in group if id(e) in entered]
        if not checks:
            continue
        through, failed = with_own_derivative(scene, checks, [n for draws in entered.values() for n in draws])
        agree = held_against(scene, checks, through) if through else None
        right = {id(e) for e in agree.explained} if agree else set()
        for evidence in checks:
            if through and refused(through, evidence):
                continue  # another op refuses as well: that is what has to be told
            words = agree.words if agree and id(evidence) in right else ""
            evidence.notes["sampler"] = Entry(entered[id(evidence)], is_flat(evidence), words or failed)
        found = [e for e in checks if "sampler" in e.notes]
        for alike in by(found, lambda e: e.notes["sampler"].key):
            yield Claim("GC102", alike, partial(describe, scene))


def draws_of(scene: Scene, evidence: Evidence) -> tuple[Node, ...]:
    nodes = nodes_of(scene, evidence.check.backend, ("draw",))
    check = evidence.check
    return tuple(n for n in nodes if check.parameter in n.sampled and check.objective in n.objectives)


def with_own_derivative(
    scene: Scene, checks: list[Evidence], draws: list[Node]
) -> tuple[dict[tuple[str, str], Gradient], str]:
    """The gradients composed op by op, with the derivative of each draw by its parameters in the place of its rule."""
    try:
        with scene.lab.session(scene.case, checks[0].check.backend, scene.arrays) as session:
            if session.can("composed"):
                return session.composed(open_stops=True, inside=sorted({n.number for n in draws})), ""
    except BackendError:
        pass
    return {}, ""


def refused(gradients: dict[tuple[str, str], Gradient], evidence: Evidence) -> bool:
    return gradients[evidence.check.objective, evidence.check.parameter].status in ("null", "refused")


def is_flat(evidence: Evidence) -> bool:
    """Whether the objective does not move at all for small steps: what is drawn is discrete."""
    return evidence.estimate is not None and not evidence.estimate.moved[evidence.objective_index]


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    entry: Entry = first.notes["sampler"]
    draw, names = entry.draws[0], ", ".join(unique(e.check.parameter for e in checks))
    several = len({e.check.parameter for e in checks}) > 1
    return finding(
        "GC102",
        checks,
        f"no gradient by {names}, {'parameters' if several else 'a parameter'} of the distribution that {draw.op} draws from",
        numbers=numbers(first),
        because=f"{entering(entry, checks)}; a draw has no reverse rule by the parameters of its distribution",
        proof=proof(entry, checks),
        help=way_out(entry),
        note=""
        if entry.flat
        else "the differences hold the random bits: they are the derivative that a reparameterised draw has",
        whose="the step",
        blame=first_line(entry.draws) or step_blame(scene.case),
    )


def entering(entry: Entry, checks: list[Evidence]) -> str:
    """ "mu enters normal at step.py:8 as its loc"; for every draw."""
    told = []
    for draw in entry.draws:
        for name in unique(e.check.parameter for e in checks):
            if name in draw.sampled:
                known = ", ".join(n for n in draw.sampled[name] if n)
                told.append(f"{name} enters {draw.op} at {draw.place}" + (f" as its {known}" if known else ""))
    return " and ".join(told)


def proof(entry: Entry, checks: list[Evidence]) -> str:
    if entry.flat:
        return (
            "moved by small steps, with the same random bits, the objective stays the same: what is drawn is discrete, "
            "or a step is all of it that arrives"
        )
    if not entry.words:
        return ""
    return f"with the derivative of the draw itself, by differences of it with the same random bits, {entry.words}"


def way_out(entry: Entry) -> str:
    if entry.flat:
        return (
            "use a score-function estimator (REINFORCE), or the sum over all outcomes where they are few, "
            "or a continuous relaxation of the draw (Gumbel-softmax)"
        )
    written = OUTSIDE.get(entry.draws[0].op)
    how = (
        f"{entry.draws[0].op}(...)  ->  {written}" if written else "noise of a fixed distribution, transformed by them"
    )
    return f"keep the parameters out of the sampler:  {how}\nor use a score-function estimator"
