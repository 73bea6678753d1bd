"""GC102 where a parameter of a distribution is differentiated: the sampler has no reverse rule by it.

Seen in the graph: the input moves what a draw is given as its distribution. The derivative of the draw itself, with the same
random bits, is put in the place of the missing rule: that the gradient is right then is the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from gradcheck.diagnosis.blame import Node, first_line, nodes_of
from gradcheck.diagnosis.counterfactual import Agreement, held_against, with_own_derivative
from gradcheck.diagnosis.scene import Claim, Scene, alike, by, finding, number, numbers, step_blame, unique
from gradcheck.diagnosis.score_function import Mean, moves_in_the_mean
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Gradient, Verdict

SEEDS = 1024  # at most, to see the mean over draws move
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
    "choice": "x[integers(0, n)]",
    "permutation": "x[permutation(n)]",
    "multivariate_normal": "mean + dot(cholesky(cov), normal(0, 1))",
}


@dataclass(frozen=True)
class Entry:
    """The draws that a parameter enters. flat: the objective stands still for small steps; seen: what the run with the draws'
    own derivative showed, or None.
    """

    draws: tuple[Node, ...]
    flat: bool
    seen: Agreement | None

    @property
    def discrete(self) -> bool:
        return self.flat or any(draw.discrete for draw in self.draws)

    @property
    def key(self) -> object:
        return tuple((n.op, n.file, n.line) for n in self.draws), self.flat


def sampler_parameter(scene: Scene) -> Iterable[Claim]:
    gone = [e for e in scene.unexplained(Verdict.NULL) if e.check.codes[0] == "GC102"]
    for group in by(gone, lambda e: e.check.backend):
        look_at(scene, group)
    for checks in alike([e for e in gone if "sampler" in e.notes], lambda e: e.notes["sampler"].key):
        if checks[0].notes["sampler"].flat:
            look_at_the_mean(scene, checks[0])
        yield Claim("GC102", checks, partial(describe, scene))


def look_at(scene: Scene, group: list[Evidence]) -> None:
    """Note with each check of one backend the draws that its parameter enters, if they are what refuses it."""
    entered = {id(e): draws for e in group if (draws := draws_of(scene, e))}
    checks = [e for e in group if id(e) in entered]
    if not checks:
        return
    drawing = {n.number for draws in entered.values() for n in draws}
    through = with_own_derivative(scene, checks[0].check.backend, drawing, open_stops=True)
    agree = held_against(scene, [e for e in checks if not is_flat(e)], through) if through else None
    right = {id(e) for e in agree.explained} if agree else set()
    for evidence in checks:
        if through and refused(through, evidence):
            continue  # another op refuses as well: that is what has to be told
        places = {
            (n.op, n.file, n.line): n for n in reversed(entered[id(evidence)])
        }  # an unrolled loop has many of a line
        evidence.notes["sampler"] = Entry(
            tuple(reversed(places.values())), is_flat(evidence), agree if id(evidence) in right else None
        )


def look_at_the_mean(scene: Scene, evidence: Evidence) -> None:
    """Note with a check how the mean of its objective over draws moves, where that can be seen."""
    try:
        with scene.lab.session(scene.case, evidence.check.backend, scene.arrays) as session:
            if session.can("redrawn"):
                moves_in_the_mean(scene, session, evidence, SEEDS)
    except BackendError:
        return


def draws_of(scene: Scene, evidence: Evidence) -> tuple[Node, ...]:
    nodes = nodes_of(scene, evidence.check.backend, ("draw",))
    check = evidence.check
    return tuple(
        n for n in nodes if check.parameter in n.sampled and (n.reaches is None or check.objective in n.reaches)
    )


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
        numbers=(*numbers(first), *mean_line(first)),
        because=f"{entering(entry, checks)}; a draw has no reverse rule by the parameters of its distribution",
        proof=proof(entry, checks),
        help=way_out(entry),
        note=""
        if entry.discrete
        else "the differences keep the random bits: theirs is the derivative that a reparameterised draw would have",
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


def mean_line(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """How the mean over draws moves: the derivative that is wanted of a discrete draw."""
    mean: Mean | None = evidence.notes.get("mean over draws")
    if mean is None:
        return ()
    along = "" if mean.scalar else "   along a random direction"
    return (("mean over draws", f"{number(mean.slope)} +- {mean.error:.1g}   over {mean.draws} seeds{along}"),)


def proof(entry: Entry, checks: list[Evidence]) -> str:
    if entry.flat:
        return "moved by small steps, with the same random bits, the objective stays the same" + (
            f"; its mean over {mean.draws} draws moves" if (mean := checks[0].notes.get("mean over draws")) else ""
        )
    if entry.seen is None:
        return ""
    agree = entry.seen.words_for(checks)
    return f"with the derivative of the draw itself, by differences of it with the same random bits, {agree}"


def way_out(entry: Entry) -> str:
    op = entry.draws[0].op
    written = OUTSIDE.get(op)
    if entry.discrete:
        return (
            "what is drawn is discrete: use a score-function estimator (REINFORCE), or the sum over all outcomes where "
            "they are few, or a continuous relaxation of the draw (Gumbel-softmax)"
        )
    how = f"keep what is differentiated out of the sampler:  {op}(...) -> {written}"
    if written is None:
        how = "draw from a fixed distribution and transform what is drawn, where that can be done"
    return f"{how}\nor use a score-function estimator"
