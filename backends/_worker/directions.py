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


def part(move, start, stop, base=None):
    """Entries [start, stop) of a move {"key"}, or of {"key", "base", "digit"}: then each entry is weighted by one digit of its
    index, divided by the largest digit, so that the ratio to the unweighted direction tells that digit of a lone error's index.

    "inside": [low, high, reach] keeps a move in the input's domain: see turned. base: the whole unmoved input, flat; only
    looked at for that.
    """
    entries = expand(move["key"], start, stop)
    if "inside" in move:
        entries = turned(entries, base[start:stop], *move["inside"])
    if "base" in move:
        digits = np.arange(start, stop) // move["base"] ** move["digit"] % move["base"]
        entries *= digits / (move["base"] - 1)
    return entries


def turned(entries, base, low, high, reach):
    """The direction with every entry turned round that would leave [low, high] when moved by `reach` times itself.

    If reach is below half of high - low, no coefficient from 0 to reach leaves the domain. Infinities are no limits.
    """
    ends = np.asarray(base, dtype=np.float64) + reach * entries
    return np.where((ends < low) | (ends > high), -entries, entries)


def unit(move, base=None):
    """What the one entry of a move {"entry"} moves by: 1, or -1 where that would leave the domain."""
    if "inside" not in move:
        return 1.0
    return float(turned(np.ones(1), base[move["entry"] : move["entry"] + 1], *move["inside"])[0])


def blocks(size):
    """Ranges (start, stop) of at most BLOCK entries that cover a tensor of `size` entries."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def add(target, coefficient, move, base=None, first=0):
    """target += coefficient * direction, in place. target: float64, flat, the entries from `first` on. base: see part.

    move: {"key", ...} (see part) or {"entry"}.
    """
    if "entry" in move:
        if first <= move["entry"] < first + target.size:
            target[move["entry"] - first] += coefficient * unit(move, base)
        return
    for start, stop in blocks(target.size):
        target[start:stop] += coefficient * part(move, first + start, first + stop, base)


def dot(array, move, base=None):
    """(array . direction, norm of their product, sum of the product's magnitudes), all float64, block by block."""
    return dots([array], move, base)[0]


def dots(arrays, move, base=None):
    """The same for several arrays, all of one size or empty: the direction is expanded once. Empty arrays give zeros."""
    flats = [np.asarray(array).reshape(-1) for array in arrays]
    if "entry" in move:
        values = [float(flat[move["entry"]]) * unit(move, base) if flat.size else 0.0 for flat in flats]
        return [(value, abs(value), abs(value)) for value in values]
    sums = np.zeros((len(flats), 3))
    for start, stop in blocks(max((flat.size for flat in flats), default=0)):
        entries = part(move, start, stop, base)
        for k, flat in enumerate(flats):
            if flat.size:
                product = flat[start:stop].astype(np.float64) * entries
                sums[k] += product.sum(), (product * product).sum(), np.abs(product).sum()
    return [(float(total), float(squares) ** 0.5, float(size)) for total, squares, size in sums]
