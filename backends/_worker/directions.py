"""Probe directions from a counter-based generator: described by a key and a range, expanded where they are needed.

Shared by both ends of the channel, so that g . v in the core and x + h v in the worker use the same v to the bit.
"""

import numpy as np

BLOCK = 1 << 20  # entries expanded at once: memory beyond the tensors is O(BLOCK)


def expand(key, low, high):
    """Entries [low, high) of the direction `key`: sign * uniform[1/2, 1], float64[high - low].

    Only Philox.random_raw is used, whose words are equal on every numpy version. One word an entry: its top bit is the
    sign, 53 others the size.
    """
    words = bits(key, low, high)
    size = 0.5 + ((words >> np.uint64(1)) & np.uint64((1 << 53) - 1)).astype(np.float64) * 2.0**-54
    return np.where(words >> np.uint64(63), -size, size)


def part(move, start, stop):
    """Entries [start, stop) of a move {"key"}: a random direction, which further keys weight or restrict (see weights)."""
    entries = expand(move["key"], start, stop)
    if len(move) > 1:
        entries *= weights(move, start, stop)
    return entries


def weights(move, start, stop):
    """By what a move multiplies entries [start, stop) of its direction: float64[stop - start], between 0 and 1.

    "axis": [stride, length] with "base" and "digit": one digit of the coordinate along that axis, over the largest digit, so that
    the ratio to the unweighted direction tells that digit of a lone error's place; without "axis" a digit of the flat index.
    "box": a list of [stride, length, low, high]: 1 where every such coordinate is in [low, high), else 0.
    "group": [key, depth, pattern]: 1 where the entry's first `depth` random bits under that key spell `pattern`, else 0.
    """
    index = np.arange(start, stop)
    result = np.ones(stop - start)
    if "base" in move:
        place = along(index, *move["axis"]) if "axis" in move else index
        result *= place // move["base"] ** move["digit"] % move["base"] / (move["base"] - 1)
    for stride, length, low, high in move.get("box", ()):
        place = along(index, stride, length)
        result *= (low <= place) & (place < high)
    if "group" in move:
        key, depth, pattern = move["group"]
        result *= bits(key, start, stop) & np.uint64((1 << depth) - 1) == np.uint64(pattern)
    return result


def along(index, stride, length):
    """The coordinate of flat indices along an axis of `length`, of which neighbours are `stride` apart (C order)."""
    return index // stride % length


def bits(key, low, high):
    """Random words [low, high) of a key: uint64[high - low], any range the same as part of the whole."""
    generator = np.random.Philox(key=key)
    generator.advance(low // 4)  # a count of the generator gives four words
    return generator.random_raw(high - low + low % 4)[low % 4 :]


def blocks(size):
    """Ranges (start, stop) of at most BLOCK entries that cover a tensor of `size` entries."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def add(target, coefficient, move):
    """target += coefficient * direction, in place. target: float64, flat. move: {"key", ...} (see part) or {"entry"}."""
    if "entry" in move:
        target[move["entry"]] += coefficient
        return
    for start, stop in blocks(target.size):
        target[start:stop] += coefficient * part(move, start, stop)


def dot(array, move):
    """(array . direction, norm of their product, sum of the product's magnitudes), all float64, block by block."""
    flat = np.asarray(array).reshape(-1)
    if "entry" in move:
        value = float(flat[move["entry"]])
        return value, abs(value), abs(value)
    total = squares = magnitudes = 0.0
    for start, stop in blocks(flat.size):
        product = flat[start:stop].astype(np.float64) * part(move, start, stop)
        total += float(product.sum())
        squares += float((product * product).sum())
        magnitudes += float(np.abs(product).sum())
    return total, squares**0.5, magnitudes
