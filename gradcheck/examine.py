"""One case on one backend: gradients held against references of the same backend's own forward."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.entries import localised
from gradcheck.errors import BackendError
from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.model import Case, Check, Gradient, Verdict
from gradcheck.numerics import reference
from gradcheck.numerics.compare import NEEDED_POWER, Comparison, compare, looseness
from gradcheck.numerics.fingerprint import Fingerprint, Fresh, Probe, precision, recognise
from gradcheck.numerics.localise import strides
from gradcheck.numerics.reference import Allowance, Estimate
from gradcheck.session import Arrays, Move, Point, Session, unmoved
from gradcheck.subgradient import no_subgradient

DEFAULT_RTOL = {"float64": 1e-8, "float32": 1e-5}
TOO_NOISY = 300.0  # times eps: chaos looks like noise, but differences of it mean nothing
# The cotangent of the second reverse pass. A power of two scales every linear rule exactly; its sign shows rules that take a
# magnitude, and a size above 1 those that clip what is larger than the objective's own cotangent.
COTANGENT = -8.0
Gradients = dict[tuple[str, str], Gradient]
FAR = np.array([1.0, -0.7, 4.0, -3.0])  # of an input's own size: moves that show whether it matters at all
BESIDE = 2.0**-20  # of a large move: how close the point is that tells a jump from a slope
USEFUL_STEP = 2.0**-5  # central steps shrunk by bounds below this would be of no use where rounding is large
AGAIN = 8  # fresh probes of a gradient that looks rounded
RETRIES = 0.3  # of the values that a case without retries may cost
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class Examination:
    """The examination of one prepared case. twin: the same case in float64, a better reference for float32, or None."""

    def __init__(self, backend: str, session: Session, twin: Session | None, rtol: float | None, atol: float) -> None:
        self.backend, self.session, self.case = backend, session, session.case
        self.source = twin or session  # where reference values come from
        self.twin = twin
        self.rtol = DEFAULT_RTOL[self.case.dtype] if rtol is None else rtol
        self.atol = atol
        self.objectives = [o.name for o in self.case.objectives]
        self.wanted = {name for o in self.case.objectives for name in o.wrt}
        self.names = [i.name for i in self.case.inputs if i.name in self.wanted and session.tensors[i.name].is_float]
        self.scales = tensor_scales({name: session.tensors[name].rms for name in self.names})
        # the lowest precision on the way, which a model may choose below that of its inputs
        self.eps, self.own_eps = EPS[self.source.precision], EPS[session.precision]
        self.domains = {n: domain(unmoved(session, n), self.case.input(n).bounds, self.scales[n]) for n in self.names}
        self.ceiling = np.inf  # the step that an earlier input needed where the joint direction's was too large
        self._products: dict[tuple[Any, ...], list[list[tuple[float, float, float]]]] = {}

    @property
    def rounds(self) -> bool:
        """Whether gradients are rounded to less than float64, so that they may be off by it."""
        return self.session.precision != "float64"

    def run(self) -> BackendEvidence:
        """Survey, differentiate, probe, judge, confirm, localise."""
        if not self.survey():
            return self.finish([self.verdict(o, p, Verdict.NONFINITE, ("GC303",)) for o, p in self.pairs()])
        self.take_gradients()
        self.pilot()
        self.estimates = {name: self.probe(name, self.step, allowance=self.allowance) for name in self.names}
        return self.finish([self.judge(o, p) for o, p in self.pairs()])

    def pairs(self) -> list[tuple[int, str]]:
        return [(i, name) for i, o in enumerate(self.case.objectives) for name in o.wrt]

    def finish(self, checks: list[Evidence]) -> BackendEvidence:
        evaluations = self.session.evaluations + (self.twin.evaluations if self.twin else 0)
        return BackendEvidence(
            self.backend,
            self.session.rollout,
            checks,
            self.values,
            self.magnitudes,
            evaluations=evaluations,
            case=self.case,
            coarsest=str(self.session.facts.get("coarsest", "")) if hasattr(self.session, "facts") else "",
        )

    # -- what all probes share -------------------------------------------------------------------------------------

    def survey(self) -> bool:
        """Base values (twice: do they repeat?) and their noise. False if none is finite."""
        self.inward = any(found.inside for found in self.domains.values())
        self.largest_step = min((found.largest for found in self.domains.values()), default=reference.LARGEST_STEP)
        offsets = reference.noise_offsets(self.eps, self.inward, self.largest_step)
        values, magnitudes = self.source.values([(), (), *map(self.joint, offsets)])
        if self.twin:
            own, own_magnitudes = self.session.values([(), ()])
            self.values, self.magnitudes, self.again = own[0], own_magnitudes[0], own[1]
        else:
            self.values, self.magnitudes, self.again = values[0], magnitudes[0], values[1]
        self.base = values[0]
        self.finite = np.isfinite(self.values)
        with np.errstate(invalid="ignore"):
            self.repeats = ~(np.abs(self.values - self.again) > 64 * self.own_eps * self.magnitudes) | ~self.finite
        self.rounding = TOO_NOISY * self.eps * np.maximum(np.abs(self.base), magnitudes[0])
        self.sigma = reference.noise_level(offsets, values[2:], self.base, self.eps)
        self.jumps = reference.in_two_groups(values[1:])
        # how many times its least the forward's rounding is: tangents are carried along the same way, and lose as much
        least = 0.3 * self.eps * np.maximum(np.abs(self.base), 1e-6 * magnitudes[0]) + np.finfo(float).tiny
        with np.errstate(invalid="ignore"):  # of an objective that is not finite
            self.amplified = np.maximum(1.0, np.nan_to_num(self.sigma / least, nan=1.0, posinf=1.0))
        return bool(self.finite.any())

    def pilot(self) -> None:
        """The step to begin with, and whether complex step can be had: from values along one direction of all inputs."""
        step = reference.pilot_step(self.sigma, np.array([self.slope(i) for i in range(len(self.objectives))]))
        step = min(step, self.largest_step)
        rungs, estimated = reference.stencil(self.inward)
        values, _ = self.source.values([self.joint(step * rung) for rung in rungs])
        self.joint_estimate = estimated(self.base, values, step, self.sigma)
        with np.errstate(invalid="ignore"):
            steepest = np.abs(values - self.base).max(0) / step
        self.noisy = (
            self.sigma > self.rounding + 0.3 * reference.noise_radius(self.eps) * steepest
        )  # a kink is not noise
        self.step = reference.balanced_step(self.joint_estimate, self.finite)
        # one input bends the objective less than all at once; where the guess is wrong, the better estimate is kept
        self.quintic = self.joint_estimate.truncation / step**4 / max(len(self.names), 1) ** 1.5
        plain = 4 * len(self.names) + 16 * len(self.objectives)
        self.allowance = Allowance(int((1 + RETRIES) * plain) - 4 * len(self.names) - self.source.evaluations)
        self.complex = self.source.has_complex_step and self.names != [] and self.complex_step_holds(self.joint(1.0))

    def joint(self, t: float) -> Point:
        """All inputs moved at once, each along a random direction of its own."""
        return [(name, t * self.scales[name], self.move(name, "joint")) for name in self.names]

    def move(self, name: str, salt: str = "", **kind: Any) -> Move:
        """A move of one input: the direction named `salt`, or of another kind (see session.Move). Kept inside its bounds."""
        return self.domains[name].keep({**({"key": self.key(salt, name)} if salt else {}), **kind})

    def dot(self, array: NDArray[Any], name: str, move: Move) -> tuple[float, float, float]:
        """(array . direction, norm of their product, sum of its magnitudes) for one input, in units of its steps."""
        scale = self.scales[name]
        total, norm, size = directions.dot(array, move, unmoved(self.session, name))
        return total * scale, norm * scale, size * scale

    def slope(self, i: int) -> float:
        """The size of objective i's derivative along a direction of all inputs, as the gradients have it; NaN if unknown."""
        return float(np.sqrt(sum(self.along(i, n, self.move(n, "probe"))[1] ** 2 for n in self.names)))

    def complex_step_holds(self, along: Point) -> bool:
        """Hold complex step against one difference: it is silently wrong where the forward is not analytic."""
        self.joint_complex = self.source.derivatives([along])[0]
        held = self.joint_estimate
        error = np.abs(self.joint_complex - held.value)
        return bool((error <= held.bound + 1e-12 * np.abs(held.value))[self.finite].all())

    def take_gradients(self) -> None:
        """The analytic gradients, twice, from different cotangents; and for float32 how far rounding alone moves them."""
        self.gradients = self.session.gradients()
        self.unstable, self.nonlinear = self.compare_cotangents()
        self.jitter: list[dict[tuple[str, str], Gradient]] = []
        if self.rounds:
            for i in range(3):  # one unit in the last place, in random directions
                nudge = [(n, 2 * self.own_eps * self.scales[n], self.move(n, f"nudge {i}")) for n in self.names]
                self.jitter.append(self.session.gradients(nudge))

    def compare_cotangents(self) -> tuple[set[tuple[str, str]], dict[tuple[str, str], NDArray[Any]]]:
        """(pairs whose gradient changes between equal calls, pairs whose gradient is not proportional to the cotangent).

        The latter with the gradient that the other cotangent gives, per unit of it. Two further calls tell one from the
        other, and are made only if something differs.
        """
        limit = 64 * self.own_eps
        scaled = per_cotangent(self.session.gradients(cotangent=COTANGENT), COTANGENT)
        suspects = disagreeing(self.gradients, scaled, limit)
        if not suspects:
            return set(), {}
        again, first_again = self.session.gradients(cotangent=COTANGENT), self.session.gradients()
        unstable = disagreeing(scaled, per_cotangent(again, COTANGENT), limit)
        unstable |= disagreeing(self.gradients, first_again, limit)
        suspects -= unstable
        if not all(is_finite(scaled[pair]) for pair in suspects):  # they may only have left the range of numbers
            scaled = per_cotangent(self.session.gradients(cotangent=1 / COTANGENT), 1 / COTANGENT)
            suspects &= disagreeing(self.gradients, scaled, limit)
        found = {pair: scaled[pair].array for pair in suspects}
        return unstable, {pair: array for pair, array in found.items() if array is not None}

    # -- one probe -------------------------------------------------------------------------------------------------

    def probe(self, name: str, step: float, salt: str = "probe", allowance: Allowance | None = None) -> Estimate:
        """Directional derivatives along a random direction of one input, steps adapted until the bound suffices."""
        return self.probed(name, step, self.move(name, salt), allowance, first=salt == "probe")

    def probed(
        self, name: str, step: float, move: Move, allowance: Allowance | None = None, first: bool = False
    ) -> Estimate:
        """The same along any move. first: of this input, so that the step to begin with is still to be chosen."""
        if self.complex:
            value = self.source.derivatives([[(name, self.scales[name], move)]])[0]
            sizes = np.array([self.along(i, name, move)[2] for i in range(len(self.objectives))])
            bound = self.complex_bound(sizes, value)
            moved = value != 0
            zero = np.zeros_like(value)
            return Estimate(value, bound, zero, bound, 0.0, (), moved, zero, "complex step")
        enough, needed = self.enough(name, move)
        if first:
            step = self.first_step(name, enough)
        found = self.ladder(name, move, step, enough, needed, allowance)
        tried = [h for h, _ in found.ladder[::2]]
        if tried[-1] < tried[0]:
            self.ceiling = min(self.ceiling, tried[-1])
        return found

    def complex_bound(self, size: Any, value: Any) -> Any:
        """What complex-step derivatives may be off, per objective. size: the sum of the magnitudes of the gradient's terms."""
        return 256 * self.amplified * EPS["float64"] * np.maximum(size, np.abs(value)) + np.finfo(float).tiny

    def first_step(self, name: str, enough: NDArray[np.float64]) -> float:
        """The step to begin with, from the joint direction, and below those that were too large for earlier inputs."""
        wanted = self.finite & np.isfinite(enough)
        largest = self.domains[name].largest
        chosen = reference.balanced_step(self.joint_estimate, wanted, enough, largest, reference.CAUTION)
        return min(chosen, self.ceiling)

    def ladder(
        self,
        name: str,
        move: Move,
        step: float,
        enough: NDArray[np.float64],
        needed: NDArray[np.float64] | None = None,
        allowance: Allowance | None = None,
    ) -> Estimate:
        """Differences at several steps along one direction; per objective the smallest bound is kept."""

        def values_at(offsets: Sequence[float]) -> NDArray[np.float64]:
            return self.source.values([[(name, self.scales[name] * offset, move)] for offset in offsets])[0]

        return reference.ladder(
            values_at,
            self.base,
            self.sigma,
            step,
            enough,
            self.finite,
            needed,
            allowance,
            self.quintic,
            inward="inside" in move,
            largest=self.domains[name].largest,
        )

    def enough(self, name: str, move: Move) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Per objective, a bound that is good enough: half the tolerance; and one with which a judgement is possible.

        Endless where the input is not asked for.
        """
        sizes = np.full(len(self.objectives), np.inf)
        for i, objective in enumerate(self.case.objectives):
            if name in objective.wrt:
                sizes[i] = self.size(i, name, move)
        return 0.5 * self.rtol * sizes, 0.25 * NEEDED_POWER * sizes

    def along(self, i: int, name: str, move: Move) -> tuple[float, float, float]:
        """(g . v, norm of g * v, sum of magnitudes) for objective i; zeros where there is no gradient."""
        return self.products(name, move)[0][i]

    def spread(self, i: int, name: str, move: Move) -> float:
        """How far g . v moves when the inputs are moved by one unit in the last place; 0 where that was not measured."""
        if not self.jitter:
            return 0.0
        own, *moved = self.products(name, move)
        return max((abs(products[i][0] - own[i][0]) for products in moved), default=0.0)

    def products(self, name: str, move: Move) -> list[list[tuple[float, float, float]]]:
        """What `along` gives for every objective; of the gradients and then of each of the jitter. Computed once a move."""
        known = name, str({part: what for part, what in move.items() if part != "inside"})
        if known not in self._products:
            every = [g.get((o, name)) for g in (self.gradients, *self.jitter) for o in self.objectives]
            base, size = unmoved(self.session, name), prod(self.session.tensors[name].shape)
            arrays = [g.array if g and g.array is not None and g.array.size == size else np.zeros(0) for g in every]
            scale, count = self.scales[name], len(self.objectives)
            found = [(t * scale, n * scale, s * scale) for t, n, s in directions.dots(arrays, move, base)]
            self._products[known] = [found[k : k + count] for k in range(0, len(found), count)]
        return self._products[known]

    def size(self, i: int, name: str, move: Move) -> float:
        """What errors are relative to: the gradient along the probe, or a millionth of the objective's largest one."""
        own = self.along(i, name, move)[1]
        return max(own, 1e-6 * self.largest(i))

    def largest(self, i: int) -> float:
        """The objective's largest gradient along a probe, over its inputs; infinities and NaN apart."""
        sizes = [self.along(i, n, self.move(n, "probe"))[1] for n in self.case.objectives[i].wrt if n in self.names]
        return max([s for s in sizes if np.isfinite(s)], default=0.0)

    # -- judging ---------------------------------------------------------------------------------------------------

    def judge(self, i: int, name: str) -> Evidence:
        if name not in self.names:
            reason = "an integer input has no derivative"
            return self.verdict(i, name, Verdict.INCONCLUSIVE, ("GC401",), reason=reason)
        gradient = self.gradients[self.objectives[i], name]
        if not self.finite[i]:
            return self.verdict(i, name, Verdict.NONFINITE, ("GC303",), gradient)
        if not self.repeats[i]:
            return self.verdict(i, name, Verdict.NONDETERMINISTIC, ("GC501",), gradient)
        if gradient.status in ("null", "refused"):
            code = "GC105" if gradient.status == "refused" else "GC101" if self.null_by_draw(gradient) else "GC102"
            return self.verdict(i, name, Verdict.NULL, (code,), gradient, estimate=self.estimates[name])
        shape = self.session.tensors[name].shape
        if gradient.array is not None and gradient.array.shape != shape:
            raise BackendError(
                f"the gradient of {name} has shape {gradient.array.shape}, not {shape}",
                code="GC905",
            )
        if gradient.array is not None and not np.isfinite(gradient.array).all():
            return self.verdict(i, name, Verdict.NONFINITE, ("GC301",), gradient, estimate=self.estimates[name])
        if (self.objectives[i], name) in self.unstable:
            return self.verdict(i, name, Verdict.NONDETERMINISTIC, ("GC502",), gradient)
        found = self.held(i, name, gradient)
        return self.not_linear(found) if (self.objectives[i], name) in self.nonlinear else found

    def held(self, i: int, name: str, gradient: Gradient) -> Evidence:
        """A gradient that is finite, if it is there, and repeats: held against what the objective does."""
        zero = gradient.array is None or not gradient.array.any()
        if (
            zero and not self.estimates[name].moved[i] and self.case.order == 2
        ):  # linear in this input, or made of flat pieces
            nothing = compare(0, 0, 0, 0, 0)
            return self.verdict(i, name, Verdict.PASS, (), gradient, self.estimates[name], nothing)
        if zero and not self.estimates[name].moved[i]:
            return self.dead(i, name, gradient)
        return self.compared(i, name, gradient)

    def not_linear(self, found: Evidence) -> Evidence:
        """GC206: by the chain rule a gradient is proportional to the cotangent, this one is not. Whether it happens to agree with
        the differences at cotangent 1 is told by GC201, which it has if not.
        """
        check = found.check
        one = np.asarray(found.gradient.array, dtype=np.float64)
        other = np.asarray(self.nonlinear[check.objective, check.parameter], dtype=np.float64)
        error = np.where(np.isfinite(other), np.abs(one - other), np.inf)
        worst = np.unravel_index(int(np.argmax(error)), error.shape)
        found.notes["cotangents"] = (tuple(map(int, worst)), float(one[worst]), COTANGENT, float(other[worst]))
        wrong = check.verdict is Verdict.MISMATCH
        largest = float(np.abs(np.concatenate([one, other[np.isfinite(other)]], axis=None)).max())
        found.check = replace(
            check,
            verdict=Verdict.MISMATCH,
            codes=(*check.codes, "GC206") if wrong else ("GC206",),
            max_abs_error=check.max_abs_error if wrong else float(error[worst]),
            max_rel_error=check.max_rel_error if wrong else float(error[worst]) / largest,
            error_bound=check.error_bound if wrong else None,
            detection_limit=None,
            reference=check.reference if wrong else f"cotangent {COTANGENT:g}",
            reason="" if wrong else check.reason,
        )
        return found

    def null_by_draw(self, gradient: Gradient) -> bool:
        """Whether a null gradient is one through a random draw: a scan draws in its step, which a native model may have in any
        rollout.
        """
        scanned = self.case.draws_in_step and self.session.rollout == "scan"
        return (scanned or self.case.native_draws) and "No gradient defined for" not in gradient.why

    def dead(self, i: int, name: str, gradient: Gradient) -> Evidence:
        """Neither gradient nor objective moves; larger moves tell a stepwise objective from a dead input.

        And from one that is flat here alone (a relu that is off, a clip): beyond, the objective moves as smoothly as it is moved.
        """
        found = self.domains[name]
        move, scale, disconnected = self.move(name, "probe"), self.scales[name], gradient.status == "disconnected"

        def at(steps: NDArray[np.float64]) -> NDArray[np.float64]:
            return self.source.values([[(name, t * scale, move)] for t in steps])[0][:, i] if len(steps) else steps

        outward = FAR if found == Domain() else FAR[:2]  # a domain allows none beyond its own
        moves = found.largest * np.array([1.0, 0.7]) if found.inside else found.far * outward
        far = at(moves)
        moved = far != self.base[i]
        change = far[moved] - self.base[i]
        beside = far[moved] - at(moves[moved] * (1 - BESIDE))
        slope = (beside != 0) & (np.abs(beside) <= 1e3 * BESIDE * np.abs(change))
        if moved.any() and slope.all() and not disconnected:
            reason = "the objective is flat at this point, and moves where the input is moved by its own size or more"
            nothing = compare(0, 0, 0, 0, 0)
            return self.verdict(i, name, Verdict.PASS, ("GC104",), gradient, self.estimates[name], nothing, reason)
        if moved.any():
            reason = "the objective does not move for small steps but jumps for larger ones"
            return self.verdict(
                i, name, Verdict.INCONCLUSIVE, ("GC401",), gradient, estimate=self.estimates[name], reason=reason
            )
        verdict = Verdict.DISCONNECTED if disconnected else Verdict.PASS
        return self.verdict(
            i, name, verdict, ("GC104",), gradient, estimate=self.estimates[name], comparison=compare(0, 0, 0, 0, 0)
        )

    def compared(self, i: int, name: str, gradient: Gradient) -> Evidence:
        """Hold the gradient against the reference; a mismatch must show again along a fresh direction with a smaller step."""
        estimate = self.estimates[name]
        comparison = self.comparison(i, name, estimate, "probe")
        if comparison.verdict is Verdict.MISMATCH and comparison.analytic and comparison.error <= self.own_rounding(i):
            # only a complex step sees this far down; the reverse pass is no more exact than the terms it cancels
            reason = f"rounding: gradient and error are below that of the objective's terms, {self.own_rounding(i):.1e}"
            return self.verdict(i, name, Verdict.INCONCLUSIVE, ("GC403",), gradient, estimate, comparison, reason)
        salt, tries = "probe", 2
        if gradient.array is not None and precision(gradient.array):
            tries = AGAIN
        if comparison.verdict is Verdict.PASS and tries == AGAIN:
            salt, estimate, comparison = self.looked_at_again(i, name, estimate, comparison)
        if comparison.verdict is Verdict.MISMATCH:
            judged, before = salt, self.source.evaluations
            for attempt in range(tries):
                salt = f"confirm {attempt}"
                second = self.probe(name, estimate.step / 8 ** min(attempt + 1, 2), salt)
                confirmed = self.comparison(i, name, second, salt)
                if confirmed.verdict is Verdict.MISMATCH:
                    break
                if confirmed.verdict is Verdict.PASS and attempt == tries - 1:
                    return replace(self.verdict(i, name, Verdict.PASS, (), gradient, second, confirmed), salt=salt)
            else:
                code, reason = self.why_not(i, name, second)
                if code == "GC402" and (found := no_subgradient(self, i, name, gradient)) is not None:
                    return found
                reason = f"two probes disagree: {reason}"
                return self.verdict(i, name, Verdict.INCONCLUSIVE, (code,), gradient, estimate, comparison, reason)
            disconnected = gradient.array is None
            found = self.verdict(
                i,
                name,
                Verdict.DISCONNECTED if disconnected else Verdict.MISMATCH,
                ("GC103" if disconnected else "GC201",),
                gradient,
                estimate,
                comparison,
            )
            found.salt = judged
            probes = {judged: (estimate, comparison), salt: (second, confirmed)}
            if not disconnected:
                found.fingerprint = self.recognised(i, name, {key: known for key, (known, _) in probes.items()})
            found = localised(self, i, name, found, probes)
            spent = found.check.forward_evaluations + self.source.evaluations - before
            return replace(found, check=replace(found.check, forward_evaluations=spent))
        if comparison.verdict is Verdict.INCONCLUSIVE:
            code, reason = self.why_not(i, name, estimate)
            if code == "GC402" and (found := no_subgradient(self, i, name, gradient)) is not None:
                return found
            return self.verdict(i, name, Verdict.INCONCLUSIVE, (code,), gradient, estimate, comparison, reason)
        return self.verdict(i, name, Verdict.PASS, (), gradient, estimate, comparison)

    def looked_at_again(
        self, i: int, name: str, estimate: Estimate, comparison: Comparison
    ) -> tuple[str, Estimate, Comparison]:
        """A gradient that passed though it is made of numbers of a lower precision: the first of some fresh probes that show
        an error, else what is given. Such errors are of the size of the tolerance, and one direction alone can miss them.
        """
        for k in range(AGAIN):
            salt = f"again {k}"
            found = self.probe(name, estimate.step or self.step, salt)
            compared = self.comparison(i, name, found, salt)
            if compared.verdict is Verdict.MISMATCH:
                return salt, found, compared
        return "probe", estimate, comparison

    def recognised(self, i: int, name: str, known: dict[str, Estimate]) -> Fingerprint | None:
        """What the wrong gradient equals, from the probes that showed it; a fresh one is run for what they suggest."""
        array = self.gradients[self.objectives[i], name].array
        assert array is not None

        def probe(move: Move, estimate: Estimate | None = None) -> Probe:
            estimate = estimate or self.probed(name, self.step, move)

            def dot(candidate: NDArray[Any]) -> tuple[float, float, float]:
                return self.dot(candidate, name, move)

            return Probe(dot, float(estimate.value[i]), float(estimate.bound[i]))

        steps = strides(self.session.tensors[name].shape)

        def fresh(salt: str, axes: Sequence[int]) -> Probe:
            kept = [[steps[a], self.session.tensors[name].shape[a]] for a in axes]
            return probe(self.move(name, salt, **({"alike": kept} if kept else {})))

        turns = bool(self.domains[name].inside)  # entries are turned one by one to stay inside
        return recognise(
            array, [probe(self.move(name, salt), found) for salt, found in known.items()], Fresh(fresh, not turns)
        )

    def own_rounding(self, i: int) -> float:
        """What a few operations on terms of the objective's size may lose, along a probe."""
        return 256 * self.own_eps * float(self.magnitudes[i]) if self.complex else 0.0

    def comparison(
        self, i: int, name: str, estimate: Estimate, salt: str, planted: NDArray[Any] | None = None
    ) -> Comparison:
        """The gradient (or one with a planted error) against its reference along one probe."""
        move = self.move(name, salt)
        total, norm, _ = self.along(i, name, move)
        if planted is not None:
            total, norm, _ = self.dot(planted, name, move)
        scale = max(norm, 1e-6 * self.largest(i), abs(float(estimate.value[i])))
        tolerance, rounding = self.granted(norm, name), self.gradient_rounding(i, name, move, norm)
        value, bound = float(estimate.value[i]), float(estimate.bound[i])
        if self.noisy[i] and estimate.method != "complex step":
            bound = float("inf")
        return compare(total, value, bound, tolerance, scale, rounding)

    def tolerance(self, i: int, name: str, move: Move, norm: float) -> float:
        """What is granted beyond the reference's bound: the user's share of the gradient, and the rounding of a float32 one."""
        return self.granted(norm, name) + self.gradient_rounding(i, name, move, norm)

    def granted(self, norm: float, name: str) -> float:
        return self.rtol * norm + self.atol * self.scales[name]

    def gradient_rounding(self, i: int, name: str, move: Move, norm: float) -> float:
        """How far a gradient of less than float64 may be off along a move, from how far one unit in the last place of the inputs
        moves it.
        """
        if not self.rounds:
            return 0.0
        moved = self.spread(i, name, move) + self.own_eps * norm
        return looseness(moved, norm) * moved

    def why_not(self, i: int, name: str, estimate: Estimate) -> tuple[str, str]:
        """Code and words for a reference that cannot tell."""
        if self.source.precision != self.source.case.dtype:
            words = f"rounding: on the way to the objective the model computes in {self.source.precision}, and its gradient, too"
            return "GC403", f"{words}; check it with {self.source.case.dtype} in place of that"
        if self.noisy[i] and self.jumps[i]:
            return (
                "GC401",
                "the objective jumps at this very point: it takes two values, and moves by rounding alone around each",
            )
        if self.noisy[i]:
            times = self.sigma[i] / (self.eps * max(abs(float(self.base[i])), 1e-300))
            moves = f"{reference.noise_radius(self.eps):.0e}"
            reason = f"moves of {moves} of an input change the objective erratically, {times:.0e} times its rounding: "
            return "GC404", reason + "it is chaotic, or computed in a lower precision than it claims"
        if self.case.dtype == "float32" and self.twin:
            return (
                "GC403",
                "rounding: the float32 gradient moves by more than a judgement needs when its inputs move by one ulp",
            )
        if not np.isfinite(estimate.value[i]):
            smallest = min(step for step, _ in estimate.ladder)
            reason = f"the objective is not finite at any step tried, down to {smallest:.0e} of the input's size: "
            return "GC404", reason + "`bounds: [low, high]` on the input keeps steps inside a domain"
        if estimate.truncation[i] <= estimate.rounding[i]:
            analytic = self.along(i, name, self.move(name, "probe"))[0]
            if max(abs(analytic), abs(float(estimate.value[i]))) <= estimate.bound[i]:
                text = (
                    f"rounding: gradient and differences are both 0 to within {estimate.bound[i]:.1e} along the probe; "
                )
                return "GC403", text + "one that vanishes cannot be told from one that rounding hides"
            return "GC403", f"rounding: the objective's own noise is {self.sigma[i]:.1e}, too much for any step"
        if self.kinked(i, name, estimate):
            return "GC402", "a kink: forward and backward differences do not meet, however small the step"
        return "GC404", "differences do not converge at any step"

    def kinked(self, i: int, name: str, estimate: Estimate) -> bool:
        """Whether the gap of forward and backward slopes stays at a much smaller step, which that of curvature would not."""
        scale, move, h = self.scales[name], self.move(name, "probe"), reference.KINK_STEP
        if "inside" in move:  # looked at from one side alone
            return False
        values, _ = self.source.values([[(name, scale * h * rung, move)] for rung in reference.LADDER])
        close = reference.extrapolate(self.base, values, h, self.sigma)
        noise = 24 * float(self.sigma[i]) / h
        return bool(abs(close.gap[i]) > noise and abs(close.gap[i] - estimate.gap[i]) < 0.5 * abs(estimate.gap[i]))

    def verdict(
        self,
        i: int,
        name: str,
        verdict: Verdict,
        codes: tuple[str, ...],
        gradient: Gradient | None = None,
        estimate: Estimate | None = None,
        comparison: Comparison | None = None,
        reason: str = "",
    ) -> Evidence:
        gradient = gradient or Gradient("ok")
        array = gradient.array
        check = Check(
            self.backend,
            self.objectives[i],
            name,
            verdict,
            codes,
            shape=self.session.tensors[name].shape,
            dtype=self.session.tensors[name].dtype,
            analytic_norm=None if array is None else float(np.linalg.norm(np.asarray(array, dtype=np.float64))),
            max_abs_error=comparison.error if comparison else None,
            max_rel_error=(comparison.error / comparison.scale if comparison.scale else 0.0) if comparison else None,
            error_bound=comparison.bound if comparison else None,
            detection_limit=comparison.detection_limit(self.scales[name])
            if comparison and verdict is Verdict.PASS
            else None,
            reference=(estimate.method + (" in float64" if self.twin else "")) if estimate else "",
            forward_evaluations=0 if estimate is None else 1 if estimate.method == "complex step" else 4,
            reason=reason or ("" if verdict is Verdict.PASS else gradient.why),
            order=self.case.order,
        )
        return Evidence(check, gradient, comparison, estimate, i, self.scales.get(name, 1.0))

    def key(self, *parts: object) -> int:
        return probe_key(self.case.seed, *parts)


@dataclass(frozen=True, slots=True)
class Domain:
    """How far an input may be moved, in its own scale. largest: the largest step. far: the largest move to either side.

    inside: [low, high, reach] for moves (see directions.part) where entries lie too near a bound for central differences.
    """

    largest: float = reference.LARGEST_STEP
    far: float = 1.0
    inside: list[float] | None = None

    def keep(self, move: Move) -> Move:
        """The move, kept inside."""
        return {**move, "inside": self.inside} if self.inside else move


def domain(array: NDArray[Any], bounds: tuple[float, float] | None, scale: float) -> Domain:
    """Central differences as long as their steps can be of a useful size, with shrunken steps; else inward ones."""
    if bounds is None or not array.size:
        return Domain()
    low, high = bounds
    room = 0.99 * min(float(array.min()) - low, high - float(array.max())) / scale
    if room >= USEFUL_STEP:
        return Domain(min(reference.LARGEST_STEP, room), min(1.0, room))
    reach = min(reference.LARGEST_STEP * scale, 0.49 * (high - low))
    return Domain(reach / scale, reach / scale, [low, high, 1.01 * reach])


def probe_key(seed: int, *parts: object) -> int:
    """A direction's key: the same for every backend of a case, another for every input and purpose."""
    text = "\n".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def is_finite(gradient: Gradient) -> bool:
    return gradient.array is not None and bool(np.isfinite(gradient.array).all())


def per_cotangent(gradients: Gradients, cotangent: float) -> Gradients:
    """Gradients taken from a cotangent, divided by it: exactly, as it is a power of two."""
    return {
        pair: gradient if gradient.array is None else replace(gradient, array=gradient.array / cotangent)
        for pair, gradient in gradients.items()
    }


def disagreeing(one: Gradients, other: Gradients, relative: float) -> set[tuple[str, str]]:
    """The pairs whose arrays are not the same but for re-ordered sums."""
    return {
        pair
        for pair, gradient in one.items()
        if gradient.array is not None and differs(gradient.array, other[pair].array, relative)
    }


def differs(one: NDArray[Any], other: NDArray[Any] | None, relative: float) -> bool:
    """Whether two gradients differ by more than re-ordered sums can explain."""
    if other is None or one.shape != other.shape:
        return True
    with np.errstate(invalid="ignore"):
        limit = relative * max(float(np.max(np.abs(one), initial=0.0)), 0.0)
        return bool((np.abs(one - other) > limit).any() or (np.isfinite(one) != np.isfinite(other)).any())


def tensor_scales(rms: dict[str, float]) -> dict[str, float]:
    """Root mean square of each input, the unit of its steps; an all-zero one takes the geometric mean of the others, or 1."""
    others = [r for r in rms.values() if r > 0 and np.isfinite(r)]
    middle = float(np.exp(np.mean(np.log(others)))) if others else 1.0
    return {n: r if r > 0 and np.isfinite(r) else middle for n, r in rms.items()}


def is_twin(session: Session, twin: Session) -> bool:
    """Whether a widened native model is the same model: float64, and the same values to the rounding of float32."""
    if twin.case.dtype != "float64" or [o.name for o in twin.case.objectives] != [
        o.name for o in session.case.objectives
    ]:
        return False
    own, wide = session.values([()])[0][0], twin.values([()])[0][0]
    with np.errstate(invalid="ignore"):
        return bool((np.abs(own - wide) <= 1e-3 * np.abs(own)).all())


def float64_twin(case: Case, arrays: Arrays) -> tuple[Case, Arrays]:
    """The same case with every float input widened: what a float32 gradient is held against."""
    inputs = tuple(replace(i, dtype="float64") if i.dtype == "float32" else i for i in case.inputs)
    widened = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in arrays.items()}
    return replace(case, dtype="float64", inputs=inputs), widened
