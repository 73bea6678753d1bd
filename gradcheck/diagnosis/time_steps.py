"""Which time steps' contributions to a wrong gradient are wrong.

The input is moved at single steps: W_t = W + s_t v, with one scalar s_t a step. One reverse pass gives the derivative by every
s_t; they are held against differences of the forward, over as many steps at once as a hypothesis needs (see numerics.history).
A float32 gradient is held against differences of the same case in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import Scene
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import DEFAULT_RTOL, EPS, Domain, domain, float64_twin, probe_key, tensor_scales
from gradcheck.model import TIME_DIRECTION, TIME_OFFSET, Case, Init, Input, Role
from gradcheck.numerics import history, reference
from gradcheck.numerics.compare import looseness
from gradcheck.numerics.history import History, Search
from gradcheck.session import Arrays, Point, Session

MARKS = {history.RIGHT: ".", history.WRONG: "x", history.MISSING: "0", history.NOTHING: "-", history.UNKNOWN: "?"}
NUDGES = 3  # float32: reverse passes at inputs that are moved by one unit in the last place


@dataclass(frozen=True)
class Timeline:
    """history: what is known of each step. values: forward values until the last bad step was known, those for noise included."""

    history: History
    values: int

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last bad step."""
        return self.history.bad[0], self.history.bad[-1]

    def line(self) -> str:
        """One character a step, in groups of ten."""
        marks = "".join(MARKS[cell] for cell in self.history.cells)
        return " ".join(marks[k : k + 10] for k in range(0, len(marks), 10))

    def legend(self) -> str:
        return ", ".join(f"{mark} {word}" for word, mark in MARKS.items() if word in self.history.cells)


def timeline(scene: Scene, evidence: Evidence) -> Timeline | None:
    """Look at the steps of one wrong gradient, once; None if that cannot be done or shows no bad step.

    Parameters and sequences can be moved step by step; an initial carry acts at one time only.
    """
    if "timeline" not in evidence.notes:
        evidence.notes["timeline"] = looked_at(scene, evidence)
    found: Timeline | None = evidence.notes["timeline"]
    return found


def looked_at(scene: Scene, evidence: Evidence) -> Timeline | None:
    case, name, estimate = scene.case, evidence.check.parameter, evidence.estimate
    single = case.dtype == "float32"
    if not can_be_timed(case, name) or estimate is None or (single and case.draws_in_step):
        return None
    limits = domain(scene.arrays[name], case.input(name).bounds, evidence.scale)
    if limits.inside and case.input(name).role is Role.SEQUENCE:  # one direction for all steps suits no step's bounds
        return None
    objective, backend = evidence.check.objective, evidence.check.backend
    probed, arrays = timed(case, (objective,), name, scene.arrays, evidence.scale, evidence.salt)
    try:
        with ExitStack() as sessions:
            session = sessions.enter_context(scene.lab.session(probed, backend, arrays))
            gradient = contributions(session, objective)
            if gradient is None:
                return None
            rtol, spread, source = DEFAULT_RTOL["float64"], None, session
            if single:
                rtol, spread = 64 * EPS["float32"], rounding_spread(session, case, gradient, objective)
                if spread is None:
                    return None
                source = sessions.enter_context(scene.lab.session(*twin_of(probed, backend, arrays)))
            differences = Differences(source, estimate.step, estimate.method == "complex step", limits)
            search = Search(gradient, differences.along, rtol, probe_key(case.seed, "steps", name), spread)
            total = None
            if case.input(name).role is Role.PARAMETER:  # along the judged probe all steps move alike
                i = evidence.objective_index
                total = float(estimate.value[i]), float(estimate.bound[i])
            found = search.run(total)
    except BackendError:
        return None
    return Timeline(found, differences.spent(found.probes)) if found is not None else None


def twin_of(case: Case, backend: str, arrays: Arrays) -> tuple[Case, str, Arrays]:
    wide, widened = float64_twin(case, arrays)
    return wide, backend, widened


def can_be_timed(case: Case, name: str) -> bool:
    if case.native:  # its loop is its own: nothing in it can be moved at one step alone
        return False
    return case.steps > 1 and case.input(name).role in (Role.PARAMETER, Role.SEQUENCE)


def timed(
    case: Case, objectives: Sequence[str], name: str, arrays: Arrays, scale: float, salt: str = "probe"
) -> tuple[Case, Arrays]:
    """The case with one input moved by s_t v at every step, its objectives differentiated by s alone.

    v: `scale` times the direction of the probe that `salt` names, kept inside bounds for s_t >= 0 if it must be; of a sequence,
    the same direction at every step.
    """
    moved = case.input(name)
    size = int(np.prod(moved.shape, dtype=np.int64))
    move = domain(arrays[name], moved.bounds, scale).keep({"key": probe_key(case.seed, salt, name)})
    direction = scale * directions.part(move, 0, size, arrays[name].reshape(-1)).reshape(moved.shape)
    extra = (
        Input(TIME_OFFSET, Role.SEQUENCE, (), case.dtype, Init("zeros")),
        Input(TIME_DIRECTION, Role.CONSTANT, moved.shape, case.dtype, Init("zeros")),
    )
    probed = replace(
        case,
        inputs=(*case.inputs, *extra),
        objectives=tuple(replace(o, wrt=(TIME_OFFSET,)) for o in case.objectives if o.name in objectives),
        time_probe=name,
    )
    offsets = {TIME_OFFSET: np.zeros(case.steps, case.dtype), TIME_DIRECTION: direction.astype(case.dtype)}
    return probed, {**arrays, **offsets}


def contributions(session: Session, objective: str, point: Point = ()) -> NDArray[np.float64] | None:
    """What each step contributes to the directional derivative, by the reverse pass: float64[T]. None if it is not there."""
    array = session.gradients(point)[objective, TIME_OFFSET].array
    return None if array is None or not np.isfinite(array).all() else np.asarray(array, dtype=np.float64)


def rounding_spread(
    session: Session, case: Case, gradient: NDArray[np.float64], objective: str
) -> NDArray[np.float64] | None:
    """How far rounding alone moves each contribution, as for the judged gradients: float64[NUDGES, T]. None if it has none."""
    names = [n for o in case.objectives for n in o.wrt if session.tensors[n].is_float]
    scales = tensor_scales({name: session.tensors[name].rms for name in names})
    limits = {n: domain(session.arrays[n], case.input(n).bounds, scale) for n, scale in scales.items()}
    rows = []
    for i in range(NUDGES):
        nudge = [
            (n, 2 * EPS["float32"] * scale, limits[n].keep({"key": probe_key(case.seed, "nudge", n, i)}))
            for n, scale in scales.items()
        ]
        moved = contributions(session, objective, nudge)
        if moved is None:
            return None
        change = moved - gradient
        rows.append(looseness(float(np.linalg.norm(change)), float(np.linalg.norm(gradient))) * change)
    return np.array(rows)


class Differences:
    """Differences of a timed case along weights of its steps: complex step where that held for the judged probe.

    step: the one to begin with. limits: of every step's move (None: none). The noise is measured along all steps at once.
    """

    def __init__(self, session: Session, step: float, exact: bool, limits: Domain | None = None) -> None:
        self.session, self.step, self.limits = session, step, limits or Domain()
        self.exact = exact and session.has_complex_step
        self.costs: list[int] = []  # forward values so far, after each difference
        if not self.exact:
            eps = EPS["float64"]
            offsets = reference.noise_offsets(eps, bool(self.limits.inside), self.limits.largest)
            everywhere = np.ones(session.case.steps)
            values, _ = session.values([(), *(moves(everywhere, t) for t in offsets)])
            self.base = values[0]
            self.sigma = reference.noise_level(offsets, values[1:], self.base, eps)

    def along(self, weights: NDArray[np.float64], enough: float) -> tuple[float, float]:
        """(derivative, bound) along weights float64[T], the bound not much above `enough` if that can be had."""
        found = self.difference(weights, enough)
        self.costs.append(self.session.evaluations)
        return found

    def difference(self, weights: NDArray[np.float64], enough: float) -> tuple[float, float]:
        if self.limits.inside and not self.exact and (weights < 0).any():  # each sign by moves that stay inside
            (plus, above), (minus, below) = (self.difference(np.maximum(0, s * weights), enough / 2) for s in (1, -1))
            return plus - minus, above + below
        if not weights.any():
            return 0.0, 0.0
        if self.exact:
            value = float(self.session.derivatives([moves(weights, 1.0)])[0, 0])
            bound = 256 * EPS["float64"] * abs(value)
        else:

            def values_at(offsets: Sequence[float]) -> NDArray[np.float64]:
                return self.session.values([moves(weights, t) for t in offsets])[0]

            wanted = np.array([max(enough, 1e-300)])
            inward, largest = bool(self.limits.inside), self.limits.largest
            found = reference.ladder(
                values_at, self.base, self.sigma, self.step, wanted, np.array([True]), inward=inward, largest=largest
            )
            value, bound = float(found.value[0]), float(found.bound[0])
        return value, bound

    def spent(self, probes: int) -> int:
        """How many forward values the first so many differences took, with those that measure the noise."""
        return self.costs[probes - 1]


def moves(weights: NDArray[np.float64], t: float) -> list[tuple[str, float, dict[str, int]]]:
    return [(TIME_OFFSET, t * float(weights[k]), {"entry": int(k)}) for k in np.flatnonzero(weights)]
