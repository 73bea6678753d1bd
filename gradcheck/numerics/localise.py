"""Finds wrong entries among many from a few directional derivatives.

Along a direction v, errors e of a gradient give the discrepancy sum(e v). Along v weighted by one digit of each entry's
coordinate on an axis, a lone error gives that times its own digit: the ratios spell out where it is. The errors of a row spell
the row and no column. Of several, each is alone in one of the groups into which the entries are split at random, group by
group; what is found is verified by a difference of that entry and subtracted, so that weaker ones show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from gradcheck._backends._worker import directions

LARGEST_BASE = 1 << 20
DEEPEST = 48  # random bits by which entries are told apart: a million of them are, by about 40
LOOSE, TIGHT = 0.4, 0.1  # how far from a whole number a digit may be, beside what the readings' bounds explain


@dataclass(frozen=True, slots=True)
class Reading:
    """A discrepancy, analytic minus reference, in objective units.

    bound: what it may be without any error in the gradient, tolerance included. noise: what it is expected to be off by at
    most, for placing an error rather than judging it: what is placed wrongly is refuted by that entry's own difference.
    """

    value: float
    bound: float
    noise: float

    @property
    def seen(self) -> bool:
        return abs(self.value) > self.bound

    def __sub__(self, other: Reading) -> Reading:
        return Reading(self.value - other.value, self.bound + other.bound, self.noise + other.noise)

    def __mul__(self, weight: float) -> Reading:
        return Reading(self.value * weight, self.bound * abs(weight), self.noise * abs(weight))


class Channel(Protocol):
    """What can be measured. direction: the move along the probed direction; groups: key of the random groups; shape: of the
    gradient; values: the input itself, flat, at which moves that are kept inside a domain look.
    """

    direction: dict[str, Any]
    groups: int
    shape: tuple[int, ...]
    values: NDArray[Any]

    def read(self, move: dict[str, Any]) -> Reading:
        """The discrepancy along the direction as weighted and restricted by `move` (see directions.weights)."""

    def entry(self, index: int) -> Reading:
        """The error of one entry, by its flat index, along a direction that is 1 there."""


@dataclass(frozen=True, slots=True)
class Code:
    """The digits of the coordinate along one axis."""

    stride: int
    length: int
    base: int
    digits: int

    def moves(self) -> list[dict[str, Any]]:
        return [{"axis": [self.stride, self.length], "base": self.base, "digit": m} for m in range(self.digits)]

    def coordinate(self, plain: Reading, coded: Sequence[Reading]) -> int | None:
        """The coordinate that all errors share, or None if these readings do not spell one."""
        result = 0
        for m, reading in enumerate(coded):
            digit = reading.value / plain.value * (self.base - 1)
            blur = (reading.noise + plain.noise) / abs(plain.value) * (self.base - 1)
            if not abs(digit - round(digit)) <= min(LOOSE, TIGHT + blur) or not 0 <= round(digit) < self.base:
                return None
            result += round(digit) * self.base**m
        return result if result < self.length else None


def strides(shape: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis are in the flat tensor (C order)."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def codes_for(shape: Sequence[int], plain: Reading) -> list[Code]:
    """A code per axis that is longer than 1, of as few digits as this reading's accuracy can tell apart.

    Base 2 is tried whatever that is, for what it finds is verified.
    """
    largest = base_for(max(shape, default=1), plain.value, plain.noise) or 2
    found = []
    for stride, length in zip(strides(shape), shape, strict=True):
        if length > 1:
            digits = digits_needed(length, largest)
            base = next(b for b in range(max(2, int(length ** (1 / digits)) - 1), length + 2) if b**digits >= length)
            found.append(Code(stride, length, base, digits))
    return found


def base_for(size: int, discrepancy: float, uncertainty: float) -> int | None:
    """The base whose digits can be told apart, or None if no digit can. Both in objective units along the probe.

    The uncertainty is a bound, mostly far above the error: 2 is tried with whatever exceeds it, and what it finds is verified.
    """
    if not (math.isfinite(uncertainty) and abs(discrepancy) > uncertainty):
        return None
    resolution = abs(discrepancy) / (8 * max(uncertainty, 1e-300))
    return int(max(2, min(size, LARGEST_BASE, resolution)))


def digits_needed(size: int, base: int) -> int:
    """How many digits an index below `size` has."""
    count, reach = 1, base
    while reach < size:
        count, reach = count + 1, reach * base
    return count


def weight(channel: Channel, index: int, move: dict[str, Any]) -> float:
    """The entry of the direction under a move."""
    return float(directions.part({**channel.direction, **move}, index, index + 1, channel.values)[0])


@dataclass
class Bucket:
    """Entries that contain errors. restriction: what makes a move theirs. known: errors that the readings no longer hold.

    plain: the discrepancy along their direction; coded: the same weighted by each digit of each code.
    """

    restriction: dict[str, Any]
    plain: Reading
    codes: list[Code]
    coded: list[list[Reading]]
    known: set[int] = field(default_factory=set)

    @property
    def depth(self) -> int:
        return int(self.restriction["group"][1]) if "group" in self.restriction else 0

    def without(self, channel: Channel, found: dict[int, Reading]) -> Bucket:
        """The bucket with the errors that were found since it was read subtracted."""
        fresh = {k: e for k, e in found.items() if k not in self.known}

        def rest(reading: Reading, move: dict[str, Any]) -> Reading:
            for index, error in fresh.items():
                reading -= error * weight(channel, index, {**self.restriction, **move})
            return reading

        coded = [
            [rest(r, m) for r, m in zip(rs, c.moves(), strict=True)]
            for rs, c in zip(self.coded, self.codes, strict=True)
        ]
        return Bucket(self.restriction, rest(self.plain, {}), self.codes, coded, self.known | set(fresh))

    def coordinates(self) -> list[int | None]:
        """What its errors share, per code."""
        if not self.plain.seen:
            return [None] * len(self.codes)
        return [c.coordinate(self.plain, readings) for c, readings in zip(self.codes, self.coded, strict=True)]

    def lone(self, channel: Channel) -> int | None:
        """The index that its readings spell, if they do and it is one of the bucket's entries."""
        places = self.coordinates()
        if None in places:
            return None
        index = sum(p * c.stride for p, c in zip(places, self.codes, strict=True) if p is not None)
        return index if weight(channel, index, self.restriction) else None

    def legible(self) -> bool:
        """Whether its readings are accurate enough for its codes."""
        blur = [
            max(r.noise for r in readings) + self.plain.noise < 2 * abs(self.plain.value) / (c.base - 1)
            for c, readings in zip(self.codes, self.coded, strict=True)
        ]
        return all(blur)


def bucket(channel: Channel, plain: Reading, restriction: dict[str, Any] | None = None) -> Bucket:
    """A bucket of which the plain discrepancy is known, and now its codes are read."""
    restriction = restriction or {}
    codes = codes_for(channel.shape, plain)
    return Bucket(restriction, plain, codes, read_codes(channel, codes, restriction))


def read_codes(channel: Channel, codes: Sequence[Code], restriction: dict[str, Any]) -> list[list[Reading]]:
    return [[channel.read({**restriction, **move}) for move in code.moves()] for code in codes]


def peel(channel: Channel, queue: list[Bucket], found: dict[int, Reading], go_on: Callable[[], bool]) -> None:
    """Move errors from the queue of buckets to `found` (flat index -> error), the strongest first, while go_on() holds.

    The queue is empty in the end if all errors were found; else it holds what is left and the work can be taken up again.
    """
    refuted: set[int] = set()
    while queue:
        queue[:] = [b for b in (b.without(channel, found) for b in queue) if b.plain.seen]
        queue.sort(key=lambda b: abs(b.plain.value))
        if not queue or not go_on():
            return
        here = queue.pop()
        index = here.lone(channel)
        if index is not None and index not in refuted and index not in found:
            error = channel.entry(index)
            if error.seen:
                found[index] = error
                queue.append(here)
                continue
            refuted.add(index)
        if here.depth >= DEEPEST:
            queue.append(here)
            return
        queue.extend(split(channel, here, found))


def split(channel: Channel, whole: Bucket, found: dict[int, Reading]) -> Iterator[Bucket]:
    """The two halves of a bucket by one more random bit; the second by subtraction, so that it costs nothing."""
    if not whole.legible():
        fresh = Bucket(whole.restriction, whole.plain, codes_for(channel.shape, whole.plain), [])
        if [c.base for c in fresh.codes] != [c.base for c in whole.codes]:
            fresh.coded = read_codes(channel, fresh.codes, fresh.restriction)
            raw = Bucket(fresh.restriction, Reading(0.0, 0.0, 0.0), fresh.codes, fresh.coded)
            rest = raw.without(channel, {k: found[k] for k in whole.known & set(found)})
            yield Bucket(whole.restriction, whole.plain, rest.codes, rest.coded, whole.known)
            return
    depth, pattern = whole.depth, whole.restriction["group"][2] if whole.depth else 0
    restrictions = [
        {**whole.restriction, "group": [channel.groups, depth + 1, pattern | (bit << depth)]} for bit in (0, 1)
    ]
    half = Bucket(restrictions[0], channel.read(restrictions[0]), [], []).without(channel, found)
    other = whole.plain - half.plain
    if half.plain.seen and other.seen:
        raw = Bucket(restrictions[0], half.plain, whole.codes, read_codes(channel, whole.codes, restrictions[0]))
        half = Bucket(restrictions[0], half.plain, whole.codes, raw.without(channel, found).coded, set(found))
        coded = [[w - h for w, h in zip(*both, strict=True)] for both in zip(whole.coded, half.coded, strict=True)]
        yield half
        yield Bucket(restrictions[1], other, whole.codes, coded, set(found))
    else:  # all of it is on one side
        side = 0 if abs(half.plain.value) > abs(other.value) else 1
        yield Bucket(restrictions[side], whole.plain, whole.codes, whole.coded, set(found))


def single(channel: Channel, seed: int) -> tuple[int, int] | None:
    """One of very many errors: (flat index, random bits that told it from the others), or None if none was singled out.

    Entries are halved by random bits until an error seems alone, as one half shows nothing; its readings are taken only then.
    seed: which half is looked at first, bit by bit, so that several errors can be asked for.
    """
    plain, depth, pattern = channel.read({}), 0, 0
    while depth < DEEPEST and plain.seen:
        bit = (seed >> depth) & 1
        sides = [[channel.groups, depth + 1, pattern | (b << depth)] for b in (bit, 1 - bit)]
        half = channel.read({"group": sides[0]})
        rest = plain - half
        plain, group = (half, sides[0]) if half.seen else (rest, sides[1])
        depth, pattern = group[1], group[2]
        if not (half.seen and rest.seen):
            index = bucket(channel, plain, {"group": group}).lone(channel)
            if index is not None:
                return index, depth
    return None


def hull(channel: Channel, wrong: Sequence[int]) -> list[tuple[int, int]]:
    """The smallest box [low, high) per axis that holds all errors, grown from entries that are known to be wrong."""
    sides = []
    for stride, length in zip(strides(channel.shape), channel.shape, strict=True):
        places = [k // stride % length for k in wrong]
        first, last = min(places), max(places)
        empty = partial(nothing, channel, stride, length)
        before = boundary(first, lambda far, empty=empty, first=first: empty(0, first - far))  # type: ignore[misc]
        after = boundary(length - 1 - last, lambda far, empty=empty, last=last: empty(last + 1 + far, None))  # type: ignore[misc]
        sides.append((first - before, last + 1 + after))
    return sides


def nothing(channel: Channel, stride: int, length: int, low: int, high: int | None) -> bool:
    """Whether no error is seen between two coordinates along an axis."""
    high = length if high is None else high
    return low >= high or not channel.read({"box": [[stride, length, low, high]]}).seen


def boundary(room: int, empty_beyond: Callable[[int], bool]) -> int:
    """The smallest distance, at most `room`, beyond which nothing is; looked for in doubling steps, then between two."""
    low, high = 0, 0
    while high < room and not empty_beyond(high):
        low, high = high + 1, min(room, max(1, 2 * high))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if empty_beyond(middle) else (middle + 1, high)
    return high


def box_move(shape: Sequence[int], box: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The restriction to a box; axes that it spans are left out."""
    spans = zip(strides(shape), shape, box, strict=True)
    return {"box": [[stride, length, low, high] for stride, length, (low, high) in spans if (low, high) != (0, length)]}
