"""Where a wrong gradient is wrong: a lone entry, a few, a row, a block, the whole tensor; and what the errors have in common.

The discrepancies along the two probes that showed the mismatch are known. One probe is weighted and restricted until the
errors are placed (see numerics.localise); the other had no part in that and shows whether all of them were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from gradcheck._backends._worker import directions
from gradcheck.evidence import Evidence
from gradcheck.model import WHOLE, Worst, Wrong
from gradcheck.numerics.compare import LOOSE, Comparison
from gradcheck.numerics.localise import (
    Bucket,
    Reading,
    box_move,
    bucket,
    hull,
    peel,
    single,
    strides,
    weight,
)
from gradcheck.numerics.reference import LARGEST_STEP, Estimate
from gradcheck.session import unmoved

if TYPE_CHECKING:
    from gradcheck.examine import Examination

FEW, FEWER = 12, 4  # entries so few that looking at each costs less than a search of several, of one
SMALL = 512  # entries of a tensor in which a sample of single ones tells as much as groups do
SAMPLE = 8  # entries looked at to tell whether most are wrong
CLOSE = 1 / 8  # of the tensor: a box this small holds all of several errors hardly by chance
LISTED = 8  # wrong entries that are named
MOST = 40  # wrong entries that are searched for one by one
NOT_SO_MANY = 8  # random bits that tell an error from all others where there are no more than that, or little more
PATIENCE = 100  # values that may pass before the first of them is found, and
EACH = 30  # those granted for every further one
EPS = 2.0**-52

Box = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Look:
    """One entry, differenced alone. reference +- bound per unit of the input; error: in objective units, as along a probe."""

    analytic: float
    reference: float
    bound: float
    error: Reading
    estimate: Estimate | None

    @property
    def wrong(self) -> bool:
        return self.error.seen


class Probed:
    """What can be measured around one direction that showed the mismatch: a Channel, with the discrepancy along all of it."""

    def __init__(self, search: Search, salt: str, estimate: Estimate, comparison: Comparison) -> None:
        self.search, self.estimate = search, estimate
        self.direction = search.exam.move(search.name, salt)
        self.values = search.values
        self.groups = search.exam.key("groups", search.name)
        self.shape = search.shape
        self.plain = search.plain(self.direction, comparison)

    def read(self, move: dict[str, Any]) -> Reading:
        return self.search.measured({**self.direction, **move}, self.estimate.step, self.plain.bound)[0]

    def entry(self, index: int) -> Reading:
        return self.search.look(index).error

    def left(self, found: dict[int, Reading]) -> Reading:
        """The discrepancy that these errors do not explain."""
        rest = self.plain
        for index, error in found.items():
            rest -= error * weight(self, index, {})
        return rest


class Search:
    """The search in one wrong gradient: of objective i by input `name`. flat: the analytic one, zeros where there is none."""

    def __init__(
        self, exam: Examination, i: int, name: str, evidence: Evidence, probes: dict[str, tuple[Estimate, Comparison]]
    ) -> None:
        self.exam, self.i, self.name, self.evidence = exam, i, name, evidence
        self.shape: tuple[int, ...] = tuple(exam.session.tensors[name].shape)
        self.size = prod(self.shape)
        self.values = unmoved(exam.session, name)
        array = evidence.gradient.array
        self.flat = np.zeros(self.size) if array is None else np.asarray(array).reshape(-1)
        self.looks: dict[int, Look] = {}
        self.random = np.random.Generator(np.random.Philox(key=exam.key("sample", name)))
        measured = [Probed(self, salt, *known) for salt, known in probes.items()]
        self.probe, self.other = sorted(measured, key=lambda p: -abs(p.plain.value) / max(p.plain.bound, 1e-300))

    # -- measuring -------------------------------------------------------------------------------------------------

    def measured(
        self, move: dict[str, Any], step: float, enough: float
    ) -> tuple[Reading, float, float, Estimate | None]:
        """(discrepancy, reference, its bound, estimate) along a move times the input's scale."""
        exam, scale = self.exam, self.exam.scales[self.name]
        total, norm, size = exam.dot(self.flat, self.name, move)
        estimate = None
        if exam.complex:
            value = float(exam.source.derivatives([[(self.name, scale, move)]])[0, self.i])
            bound = float(exam.complex_bound(size, value)[self.i])
        else:
            wanted = np.full(len(exam.objectives), np.inf)
            wanted[self.i] = max(2 * enough, 1e-300)
            estimate = exam.ladder(self.name, move, step, wanted)
            value, bound = float(estimate.value[self.i]), float(estimate.bound[self.i])
        granted = exam.tolerance(self.i, self.name, move, norm)
        return self.reading(total - value, bound, granted, size), value, bound, estimate

    def plain(self, move: dict[str, Any], comparison: Comparison) -> Reading:
        """The discrepancy of a probe that has been judged."""
        size = self.exam.dot(self.flat, self.name, move)[2]
        granted = comparison.allowed - comparison.bound
        return self.reading(comparison.analytic - comparison.reference, comparison.bound, granted, size)

    def reading(self, value: float, bound: float, granted: float, size: float) -> Reading:
        """granted: the tolerance, of which a float64 gradient needs next to nothing; size: sum of the terms' magnitudes."""
        rounding = granted / LOOSE if self.exam.rounds else 64 * EPS * size
        return Reading(value, bound + granted, bound + rounding)

    def look(self, index: int, enough: float | None = None) -> Look:
        """One entry by itself; its steps may be larger than those of a whole direction. enough: asks for a smaller bound."""
        if index not in self.looks or enough is not None:
            step = min(LARGEST_STEP, 8 * self.probe.estimate.step)
            wanted = self.probe.plain.bound if enough is None else enough / 2
            move = self.exam.move(self.name, entry=index)
            error, value, bound, estimate = self.measured(move, step, wanted)
            scale = self.exam.scales[self.name]
            sign = directions.unit(move, self.values)  # which way it had to be moved to stay inside its bounds
            reference = sign * value / scale
            self.looks[index] = Look(float(self.flat[index]), reference, bound / scale, error * sign, estimate)
        return self.looks[index]

    def wrong(self, indices: Iterable[int] | None = None) -> list[int]:
        """Those looked at that are wrong, the worst first."""
        looked = self.looks if indices is None else indices
        return sorted((k for k in looked if self.looks[k].wrong), key=lambda k: -abs(self.looks[k].error.value))

    def sample(self, count: int, box: Box | None = None) -> list[int]:
        """Look at so many entries of a box, chosen at random, or at all of them if it has no more. Returns their indices."""
        box = box or self.whole()
        inside = volume(box)
        chosen = range(inside) if inside <= count else self.random.choice(inside, count, replace=False)
        places = np.unravel_index(np.asarray(chosen, dtype=np.int64), [high - low for low, high in box] or [1])
        lows = [low for low, _ in box] or [0]
        steps = strides(self.shape) or [1]
        shifted = [(p + low) * step for p, low, step in zip(places, lows, steps, strict=True)]
        indices = [int(k) for k in np.sum(shifted, axis=0)]
        for index in indices:
            self.look(index)
        return indices

    def whole(self) -> Box:
        return [(0, length) for length in self.shape]

    # -- the search ------------------------------------------------------------------------------------------------

    def run(self) -> Wrong | None:
        """Place the errors; None if nothing can be said."""
        if self.evidence.fingerprint is not None and self.evidence.fingerprint.tells_all:
            return self.pattern()
        if self.size <= FEWER:
            return self.counted(self.whole())
        if not self.flat.any() and self.wrong(looked := self.sample(SAMPLE // 2)):
            return self.estimate(looked, self.whole())
        return self.coded()

    def pattern(self) -> Wrong:
        """A recognised pattern says what every entry should be: the one that is furthest off is looked at."""
        array, found = self.evidence.gradient.array, self.evidence.fingerprint
        assert array is not None
        assert found is not None
        error = np.abs(array - found.corrected(array)).reshape(-1)
        self.look(int(np.argmax(error)))
        shared = (
            f"each is {found.factor:.6g} times the right one"
            if found.kind == "factor"
            else f"the right ones {found.words}" + ("" if found.factor == 1 else f", times {found.factor:.6g}")
        )
        return self.summary(int(np.count_nonzero(error)), True, [], self.whole(), shared)

    def counted(self, box: Box) -> Wrong:
        """Every entry of a box is looked at."""
        looked = self.sample(volume(box), box)
        count = len(self.wrong(looked))
        scattered = box == self.whole() and count < len(looked)
        return self.summary(count, True, looked, None if scattered else box)

    def coded(self) -> Wrong | None:
        """By the digits of the coordinates: a lone entry spells all of its own, the errors of a row that of the row."""
        root = rest = bucket(self.probe, self.probe.plain)
        found: dict[int, Reading] = {}
        while (index := rest.lone(self.probe)) is not None and index not in self.looks and self.look(index).wrong:
            found[index] = self.looks[index].error
            if self.all_found(found):
                return self.listed(found)
            rest = root.without(self.probe, found)
        for box in self.slices(rest):
            inside = self.other.read(box_move(self.shape, box))
            if not (self.other.plain - inside).seen:
                return self.in_region(box, inside, root)
        return self.scattered(root, found)

    def slices(self, root: Bucket) -> list[Box]:
        """The boxes that the coordinates leave: the one with all that were spelt, then each axis for itself."""
        coordinates = dict(zip((c.stride for c in root.codes), root.coordinates(), strict=True))
        whole = self.whole()
        spelt = [
            (axis, coordinates[stride])
            for axis, (stride, length) in enumerate(zip(strides(self.shape), self.shape, strict=True))
            if length > 1 and coordinates[stride] is not None
        ]
        choices = [spelt, *([one] for one in spelt)] if 1 < len(spelt) < len(root.codes) else [[one] for one in spelt]
        boxes = []
        for chosen in choices:
            at = {axis: place for axis, place in chosen if place is not None}
            boxes.append([(at[a], at[a] + 1) if a in at else side for a, side in enumerate(whole)])
        return [box for box in boxes if volume(box) > 1]

    def all_found(self, found: dict[int, Reading]) -> bool:
        """Whether these errors explain what both probes showed, the one by which they were found and the other."""
        return not self.probe.left(found).seen and not self.other.left(found).seen

    def in_region(self, box: Box, inside: Reading, root: Bucket) -> Wrong:
        """All errors are in this box: the entries times a factor, few, or most. inside: what the other probe shows there."""
        factor = self.factor(box, inside)
        if factor is not None:
            array = self.flat.reshape(self.shape)[tuple(slice(*side) for side in box)]
            largest = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
            self.look(
                int(np.ravel_multi_index([k + low for k, (low, _) in zip(largest, box, strict=True)], self.shape))
            )
            shared = f"each is {factor:.6g} times the right one"
            return self.summary(int(np.count_nonzero(array)), True, [], box, shared)
        looked = self.sample(SAMPLE // 2, box)
        if len(self.wrong(looked)) < len(looked):
            found = {k: self.looks[k].error for k in self.wrong()}
            root.restriction = box_move(self.shape, box)
            if self.peeled([root], found):
                return self.listed(found, box)
            looked += self.sample(SAMPLE, box)
        elif volume(box) == len(looked):
            return self.counted(box)
        return self.estimate(looked, box)

    def factor(self, box: Box, inside: Reading) -> float | None:
        """By what the entries of a box are multiplied: from one probe, and borne out by the other. None if they are not."""
        move = box_move(self.shape, box)
        sides = []
        for probe, reading in ((self.probe, self.probe.plain), (self.other, inside)):
            total, norm, _ = self.exam.dot(self.flat, self.name, {**probe.direction, **move})
            sides.append((total, norm, total - reading.value, reading.bound))
        (total, _, right, bound), (other, norm, wanted, granted) = sides
        if not total or abs(right) <= 100 * bound or abs(total - right) <= 10 * bound:
            return None
        factor = total / right
        return factor if abs(other / factor - wanted) <= granted + 1e-6 * norm / abs(factor) else None

    def scattered(self, root: Bucket, found: dict[int, Reading]) -> Wrong | None:
        """No slice holds all errors: one by one if they are few, else a block, or a share of all."""
        if self.size <= FEW:
            return self.counted(self.whole())
        if self.most():
            return self.many(found)
        found |= {k: self.looks[k].error for k in self.wrong()}
        queue = [root]
        if self.peeled(queue, found, 4):
            return self.listed(found)
        if (box := self.block(found, CLOSE)) is not None:
            return self.within(box)
        sparse = self.size > SMALL or 4 * len(self.wrong(self.sample(SAMPLE))) < SAMPLE
        return self.listed(found) if sparse and self.peeled(queue, found) else self.many(found)

    def most(self) -> bool:
        """Whether a large share of the entries is wrong: half of four of a small tensor, or both of two small groups."""
        if self.size <= SMALL:
            return 2 * len(self.wrong(self.sample(4))) >= 4
        depth = min(8, int(np.log2(self.size / 8)))
        groups = ({"group": [self.probe.groups, depth, pattern]} for pattern in (0, 2**depth - 1))
        return all(self.probe.read(group).seen for group in groups)

    def peeled(self, queue: list[Bucket], found: dict[int, Reading], most: int = MOST) -> bool:
        """Find errors one by one, up to `most`; whether those are all."""
        begun, before = self.exam.source.evaluations, len(found)

        def go_on() -> bool:
            spent = self.exam.source.evaluations - begun
            return len(found) < most and spent < PATIENCE + EACH * (len(found) - before)

        peel(self.probe, queue, found, go_on)
        return not queue and self.all_found(found)

    def many(self, found: dict[int, Reading]) -> Wrong | None:
        """More than can be found one by one: where, and about how many, from a sample."""
        looked = self.sample(SAMPLE)
        if not self.wrong():
            depth = self.some(found)
            if found and depth <= NOT_SO_MANY and self.peeled([bucket(self.probe, self.probe.plain)], found):
                return self.listed(found)
        if not self.wrong():
            return None
        if len(self.wrong(looked)) < len(looked):
            if (box := self.block(self.wrong())) is not None:
                return self.within(box)
            looked = sorted({*looked, *self.sample(SAMPLE)})
            expected = self.size * len(self.wrong(looked)) / len(looked)
            if expected <= MOST and 4 * self.size <= EACH * expected:
                return self.counted(self.whole())
        return self.estimate(looked, self.whole())

    def within(self, box: Box) -> Wrong:
        """All errors are in this box, and most of it is wrong."""
        return self.counted(box) if volume(box) <= 2 * SAMPLE else self.estimate(self.sample(SAMPLE, box), box)

    def some(self, found: dict[int, Reading]) -> int:
        """Find up to three of many errors, in random groups; returns how many random bits told the first from all others."""
        depths = []
        for pattern in range(3):
            alone = single(self.probe, pattern)
            if alone is not None and self.look(alone[0]).wrong:
                found[alone[0]] = self.looks[alone[0]].error
                depths.append(alone[1])
        return min(depths, default=0)

    def block(self, found: Iterable[int], share: float = 1.0) -> Box | None:
        """The box that holds all errors, if it is not most of the tensor; None too if those found fill more than a share."""
        found = sorted(found)
        if not found:
            return None
        places = np.array(np.unravel_index(found, self.shape))
        ends = list(zip(places.min(axis=1).tolist(), places.max(axis=1).tolist(), self.shape, strict=True))
        if len(found) > 1 and prod(high + 1 - low for low, high, _ in ends) > share * self.size:
            return None
        near = [(max(0, low - n // 4), min(n, high + 1 + n // 4)) for low, high, n in ends]
        if volume(near) > 0.75 * self.size or not self.holds_all(near):
            return None
        box = hull(self.probe, found)
        return box if volume(box) <= self.size / 2 and self.holds_all(box) else None

    def holds_all(self, box: Box) -> bool:
        """Whether the probe that had no part in finding a box shows no error outside it."""
        return not (self.other.plain - self.other.read(box_move(self.shape, box))).seen

    # -- what is said ----------------------------------------------------------------------------------------------

    def listed(self, found: dict[int, Reading], box: Box | None = None) -> Wrong:
        """These entries and no others."""
        return self.summary(len(found), True, [], box if box and len(found) > 1 else None)

    def estimate(self, looked: Sequence[int], box: Box) -> Wrong:
        wrong = len(self.wrong(looked))
        count = max(len(self.wrong()), round(volume(box) * wrong / len(looked)))
        return self.summary(count, False, looked, box if wrong == len(looked) or box != self.whole() else None)

    def summary(self, count: int, exact: bool, looked: Sequence[int], box: Box | None, shared: str = "") -> Wrong:
        wrong = self.wrong()
        entries = tuple(self.named(k) for k in wrong[:LISTED])
        return Wrong(
            count,
            exact,
            (len(self.wrong(looked)), len(looked)),
            "" if box is None else region(self.shape, box),
            self.size if box is None else volume(box),
            shared or ("" if self.evidence.gradient.array is None else in_common([self.looks[k] for k in wrong])),
            entries,
        )

    def named(self, index: int) -> Worst:
        look = self.looks[index]
        return Worst(tuple(int(k) for k in np.unravel_index(index, self.shape)), look.analytic, look.reference)


def localised(
    exam: Examination, i: int, name: str, evidence: Evidence, probes: dict[str, tuple[Estimate, Comparison]]
) -> Evidence:
    """Say in the evidence's check where the gradient is wrong, and show the worst entry; no entry that is not shown wrong."""
    search = Search(exam, i, name, evidence, probes)
    wrong = search.run()
    evidence.check = replace(evidence.check, wrong=wrong)
    if not search.wrong():
        return evidence
    worst = search.wrong()[0]
    look = search.looks[worst]
    if look.bound > 0.1 * abs(look.analytic - look.reference):
        look = search.look(worst, 1e-3 * abs(look.error.value))
    evidence.notes["entry_ladder"] = look.estimate
    largest = largest_right(search, wrong)
    largest = largest if largest > look.bound else abs(look.analytic)  # of one that should be 0, all is wrong
    absolute = abs(look.analytic - look.reference)
    known = [v.reference for v in search.looks.values()]
    evidence.check = replace(
        evidence.check,
        worst=search.named(worst),
        max_abs_error=absolute,
        max_rel_error=absolute
        / (largest or abs(look.analytic) or 1.0),  # a gradient that should be 0: all of it is wrong
        error_bound=look.bound,
        reference_norm=float(np.linalg.norm(known)) if len(known) == search.size else None,
    )
    return evidence


def largest_right(search: Search, wrong: Wrong | None) -> float:
    """The largest entry of the right gradient, as far as it is known."""
    looked = max(abs(look.reference) for look in search.looks.values())
    fingerprint, array = search.evidence.fingerprint, search.evidence.gradient.array
    if fingerprint is not None and fingerprint.tells_all and array is not None:
        return float(np.max(np.abs(fingerprint.corrected(array))))
    if wrong is None or not wrong.exact:
        return looked or float(np.max(np.abs(search.flat)))
    rest = search.flat.astype(np.float64)
    rest[list(search.looks)] = 0.0
    return max(looked, float(np.max(np.abs(rest))))


def volume(box: Box) -> int:
    return prod(high - low for low, high in box)


def region(shape: Sequence[int], box: Box) -> str:
    """A box in words: "row 3", "rows 2 to 5 and columns 0 to 2", "the slice [3, :, 1:4]", "the whole tensor"."""
    narrow = [axis for axis, (side, length) in enumerate(zip(box, shape, strict=True)) if side != (0, length)]
    if not narrow:
        return WHOLE
    if len(shape) <= 2:
        nouns = {1: ("entry", "entries")}.get(len(shape), ("row", "rows"))
        words = [nouns, ("column", "columns")]
        return " and ".join(span(*words[axis], *box[axis]) for axis in narrow)
    texts = [
        ":" if axis not in narrow else str(low) if high == low + 1 else f"{low}:{high}"
        for axis, (low, high) in enumerate(box)
    ]
    return f"the slice [{', '.join(texts)}]"


def span(one: str, many: str, low: int, high: int) -> str:
    return f"{one} {low}" if high == low + 1 else f"{many} {low} to {high - 1}"


def in_common(looks: Sequence[Look]) -> str:
    """What the errors looked at share: three or more, or nothing is said."""
    if len(looks) < 3:
        return ""
    analytic = np.array([look.analytic for look in looks])
    right = np.array([look.reference for look in looks])
    if not analytic.any():
        return "each is 0 exactly"
    if right.all() and np.ptp(ratios := analytic / right) <= 1e-3 * np.abs(ratios).max():
        return f"each is {ratios.mean():.4g} times the right one"
    error = analytic - right
    if np.ptp(error) <= 1e-3 * np.abs(error).max():
        return f"each is off by {error.mean():.4g}"
    if (analytic * right < 0).all():
        return "each has the wrong sign"
    sizes = np.abs(analytic) - np.abs(right)
    if (analytic * right > 0).all() and len(looks) >= 5 and ((sizes > 0).all() or (sizes < 0).all()):
        return "each is too large" if sizes[0] > 0 else "each is too small"
    return ""
