"""How much each part of an objective moves with an input, by differences alone: no reverse rule has a say in it.

An objective is a sum of terms, over time and over the axes of what it is taken of. Its parts are objectives of the same
forward, so one difference measures all of them. Where the input moves at single steps, that tells the effect of every step on
every term.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import Scene
from gradcheck.diagnosis.time_steps import moves, timed, twin_of
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import EPS, domain, probe_key
from gradcheck.model import Case, Objective, Role
from gradcheck.numerics import reference
from gradcheck.session import Point, Session

ACCURATE = 1e-9  # of the gradient along the direction: how accurate the derivatives of parts are wanted
RELATIVE = {"float64": 1e-8, "float32": 1e-4}  # of the norm of gradient * direction: how well a sum of parts has to fit
APART = 10.0  # times that: how far the right one has to be for a hypothesis to be stated,
NEARER = 3.0  # and for one that other gradients of the same pass have shown to hold here, too
LONGEST = 64  # steps that are moved one by one
Floats = NDArray[np.float64]
Part = tuple[int, int] | None  # (axis, index), or all of it
Family = Callable[[float], Point]  # how far -> the point


@dataclass(frozen=True)
class Measured:
    """Along one direction: the derivative of each part by each move, float64[parts, moves], and what they may be off.

    analytic: the wrong gradient along it; granted: what it may be off if it is right.
    """

    value: Floats
    bound: Floats
    analytic: float
    granted: float

    def equals(self, kept: Floats, right: float | None = None, known_elsewhere: bool = False) -> bool:
        """Whether the wrong gradient is the sum with these weights, float64[parts, moves]; and the right one, by default the sum
        of all, is another. known_elsewhere: other gradients of the same pass have shown this.
        """
        total = float((kept * self.value).sum())
        allowed = float((np.abs(kept) * self.bound).sum()) + self.granted
        known = np.isfinite(allowed) and allowed <= 1e-3 * float(np.abs(self.value).sum())
        apart = (
            abs((float(self.value.sum()) if right is None else right) - total)
            > (NEARER if known_elsewhere else APART) * allowed
        )
        return bool(known and apart and self.miss(kept) <= allowed)

    def miss(self, kept: Floats) -> float:
        return abs(self.analytic - float((kept * self.value).sum()))

    def relative(self, kept: Floats) -> float:
        return self.miss(kept) / (float(np.abs(self.value).sum()) or 1.0)


def measured(scene: Scene, evidence: Evidence, parts: Sequence[Part], salt: str, singly: bool) -> Measured | None:
    """singly: the input moves at one step after another; else at all at once. None where that cannot be done."""
    case, name, estimate, array = scene.case, evidence.check.parameter, evidence.estimate, evidence.gradient.array
    if case.native or case.order == 2 or estimate is None or array is None:
        return None
    if case.dtype == "float32" and case.draws_in_step:
        return None
    limits = domain(scene.arrays[name], case.input(name).bounds, evidence.scale)
    role = case.input(name).role
    if limits.inside or (singly and (case.steps > LONGEST or role not in (Role.PARAMETER, Role.SEQUENCE))):
        return None
    move = {"key": probe_key(case.seed, salt, name)}
    probed, arrays = in_parts(case, evidence.check.objective, parts), scene.arrays
    if singly:
        probed, arrays = timed(probed, [o.name for o in probed.objectives], name, scene.arrays, evidence.scale, salt)
        probed = replace(probed, objectives=tuple(replace(o, wrt=()) for o in probed.objectives))
        points = [stepwise(case.steps, k) for k in range(case.steps)]
        along = timed_direction(array, move, evidence.scale, case, role)
    else:
        points = [lambda t: [(name, t * evidence.scale, move)]]
        total, norm, _ = directions.dot(array, move, scene.arrays[name].reshape(-1))
        along = total * evidence.scale, norm * evidence.scale
    analytic, norm = along
    wide = twin_of(probed, evidence.check.backend, arrays) if case.dtype == "float32" else None
    try:
        with ExitStack() as sessions:
            session = sessions.enter_context(scene.lab.session(*(wide or (probed, evidence.check.backend, arrays))))
            value, bound = differences(session, points, estimate.step, ACCURATE * norm, limits.largest)
    except BackendError:
        return None
    return Measured(value, bound, analytic, RELATIVE[case.dtype] * norm)


def in_parts(case: Case, objective: str, parts: Sequence[Part]) -> Case:
    """The case with these parts of one objective for its objectives, differentiated by nothing."""
    whole = next(o for o in case.objectives if o.name == objective)

    def objective_of(part: Part) -> Objective:
        if part is None:
            return replace(whole, wrt=())
        return replace(whole, name=f"{whole.name} {part[0]} {part[1]}", wrt=(), whole=whole.name, part=part)

    return replace(case, objectives=tuple(objective_of(part) for part in parts))


def timed_direction(
    array: NDArray[np.floating], move: dict[str, int], scale: float, case: Case, role: Role
) -> tuple[float, float]:
    """(gradient . direction, norm of their product): of a sequence the direction is the same at every step (see timed)."""
    flat = np.asarray(array, dtype=np.float64)
    rows = flat.reshape(case.steps, -1) if role is Role.SEQUENCE else flat.reshape(1, -1)
    product = rows * directions.part(move, 0, rows.shape[1]) * scale
    return float(product.sum()), float(np.linalg.norm(product))


def stepwise(steps: int, k: int) -> Family:
    """Moves at step k alone."""
    return lambda t: moves(np.eye(steps)[k], t)


def differences(
    session: Session, families: Sequence[Family], step: float, enough: float, largest: float
) -> tuple[Floats, Floats]:
    """(derivatives, bounds), float64[objectives, families], of all objectives along each family of points."""
    eps = EPS["float64"]
    offsets = reference.noise_offsets(eps, False, largest)
    noise = session.values([(), *(families[len(families) // 2](t) for t in offsets)])[0]
    base, sigma = noise[0], reference.noise_level(offsets, noise[1:], noise[0], eps)
    wanted, finite = np.full(base.size, max(enough, 1e-300)), np.isfinite(base)
    columns = []
    for family in families:

        def values_at(steps: Sequence[float], family: Family = family) -> Floats:
            return session.values([family(t) for t in steps])[0]

        start = step or 2.0**-10  # a complex step has none
        columns.append(reference.ladder(values_at, base, sigma, start, wanted, finite, largest=largest))
    return np.stack([c.value for c in columns], 1), np.stack([c.bound for c in columns], 1)
