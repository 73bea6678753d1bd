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
    bits = np.random.Philox(key=key)
    bits.advance(low // 4)  # a count of the generator gives four words
    words = bits.random_raw(high - low + low % 4)[low % 4 :]
    size = 0.5 + ((words >> np.uint64(1)) & np.uint64((1 << 53) - 1)).astype(np.float64) * 2.0**-54
    return np.where(words >> np.uint64(63), -size, size)


def part(move, start, stop):
    """Entries [start, stop) of a move {"key"}, or of {"key", "base", "digit"}: then each entry is weighted by one digit of its
    index, divided by the largest digit, so that the ratio to the unweighted direction tells that digit of a lone error's index.
    """
    entries = expand(move["key"], start, stop)
    if "base" in move:
        digits = np.arange(start, stop) // move["base"] ** move["digit"] % move["base"]
        entries *= digits / (move["base"] - 1)
    return entries


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
    return dots([array], move)[0]


def dots(arrays, move):
    """The same for several arrays, all of one size or empty: the direction is expanded once. Empty arrays give zeros."""
    flats = [np.asarray(array).reshape(-1) for array in arrays]
    if "entry" in move:
        values = [float(flat[move["entry"]]) if flat.size else 0.0 for flat in flats]
        return [(value, abs(value), abs(value)) for value in values]
    sums = np.zeros((len(flats), 3))
    for start, stop in blocks(max((flat.size for flat in flats), default=0)):
        entries = part(move, start, stop)
        for k, flat in enumerate(flats):
            if flat.size:
                product = flat[start:stop].astype(np.float64) * entries
                sums[k] += product.sum(), (product * product).sum(), np.abs(product).sum()
    return [(float(total), float(squares) ** 0.5, float(size)) for total, squares, size in sums]
