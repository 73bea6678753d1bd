"""Probe directions from a counter-based generator: described by a key and a range, expanded where they are needed.

Shared by both ends of the channel, so that g . v in the core and x + h v in the worker use the same v to the bit.
"""

import numpy as np

WEIGHTS = {"base", "box", "group"}  # the keys of a move that weight its direction
BLOCK = 1 << 20  # entries expanded at once: memory beyond the tensors is O(BLOCK)


def expand(key, low, high):
    """Entries [low, high) of the direction `key`: sign * uniform[1/2, 1], float64[high - low].

    Only Philox.random_raw is used, whose words are equal on every numpy version. One word an entry: its top bit is the
    sign, 53 others the size.
    """
    words = bits(key, low, high)
    size = 0.5 + ((words >> np.uint64(1)) & np.uint64((1 << 53) - 1)).astype(np.float64) * 2.0**-54
    return np.where(words >> np.uint64(63), -size, size)


def part(move, start, stop, base=None):
    """Entries [start, stop) of a move {"key"}: a random direction, which further keys weight or restrict (see weights).

    "alike": a list of [stride, length], the axes along which the direction does not change.
    "inside": [low, high, reach] keeps a move in the input's domain: see turned. base: the whole unmoved input, flat; only
    looked at for that.
    """
    entries = repeated(move["key"], move["alike"], start, stop) if "alike" in move else expand(move["key"], start, stop)
    if "inside" in move:
        entries = turned(entries, base[start:stop], *move["inside"])
    if WEIGHTS & set(move):
        entries *= weights(move, start, stop)
    return entries


def repeated(key, axes, start, stop):
    """As expand, but every entry is the one that has 0 for a coordinate along these axes."""
    index = np.arange(start, stop)
    for stride, length in axes:
        index = index - along(index, stride, length) * stride
    low = int(index.min(initial=start))
    return expand(key, low, int(index.max(initial=low)) + 1)[index - low]


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


def only(array, axis, indices):
    """The array with zeros where the coordinate along the axis is none of the indices; as it is where it has no such axis."""
    if array.ndim <= axis or max(indices) >= array.shape[axis]:
        return array
    kept = np.zeros(array.shape[axis])
    kept[indices] = 1
    return (array * kept.reshape([-1 if k == axis else 1 for k in range(array.ndim)])).astype(array.dtype)


def bits(key, low, high):
    """Random words [low, high) of a key: uint64[high - low], any range the same as part of the whole."""
    generator = np.random.Philox(key=key)
    generator.advance(low // 4)  # a count of the generator gives four words
    return generator.random_raw(high - low + low % 4)[low % 4 :]


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
