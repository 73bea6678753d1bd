"""Case -> arrays, from seeds: bit-equal on every platform, backend and numpy >= 1.22.

Only what numpy promises is used: the words of Philox (`random_raw`), IEEE + - * /, sqrt and exact scalings.
numpy's `log` and `Generator` change between versions and processors.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from gradcheck.model import Case, Init, Input, Placement, Role

Float64s = np.ndarray[Any, np.dtype[np.float64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]

# Wichura (1988), algorithm AS241, PPND16: coefficients of numerator and denominator, highest power first
CENTRAL = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
MIDDLE = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip
# ln 2 in two parts, the first with 32 trailing zero bits: exponent * LN2_HIGH is exact (fdlibm)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ATANH_TERMS = 12  # |s| <= 0.1716, so the first term left out is below 2e-20


def arrays(case: Case) -> dict[str, np.ndarray]:
    """Every input of the case by name; sequences and sequence noise have time in front, in-step noise is absent.

    Each has its own bits, derived from (seed, role, name): adding an input changes no other. Raises ValueError if values
    lie outside their input's bounds.
    """
    made = {i.name: filled(case, i) for i in case.inputs if i.placement is not Placement.IN_STEP}
    if problems := [p for i in case.inputs if i.name in made and (p := outside(i, made[i.name]))]:
        raise ValueError("; ".join(problems))  # another seed than the file's
    return made


def derived_key(*parts: object) -> int:
    """A 128-bit key from the text of `parts`: equal parts give equal keys, on every platform."""
    texts = [str(part).encode() for part in parts]
    framed = b"".join(len(text).to_bytes(8, "little") + text for text in texts)  # ("ab", "c") is not ("a", "bc")
    return int.from_bytes(hashlib.sha256(framed).digest()[:16], "little")


def words(key: int, count: int) -> Words:
    """uint64[count]: the first words of the Philox stream `key`."""
    return np.asarray(np.random.Philox(key=key).random_raw(count), dtype=np.uint64)


def uniforms(raw: Words) -> Float64s:
    """Words -> multiples of 2**-53 in [0, 1)."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(raw: Words) -> Float64s:
    """Words -> standard normals, by the inverse of the distribution function at 2**52 midpoints in (0, 1)."""
    return inverse_normal(((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def integers(raw: Words, low: int, high: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Words -> int64 in [low, high).

    By modulo: a value's probability is off by less than (high - low) / 2**64 of itself, one word an entry.
    """
    offset = raw % np.uint64(high - low)
    return (offset + np.uint64(low % 2**64)).view(np.int64)  # two's complement: wraps where it should


def log(x: Float64s) -> Float64s:
    """The natural logarithm of positive normal floats, to about one unit in the last place."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, mantissa * 2.0, mantissa)  # now in [sqrt(1/2), sqrt(2))
    exponent = exponent.astype(np.float64) - low
    s = (mantissa - 1.0) / (mantissa + 1.0)  # log m = 2 atanh s = 2 s (1 + s^2 / 3 + s^4 / 5 + ...)
    series = _polynomial([1.0 / (2 * k + 1) for k in reversed(range(1, ATANH_TERMS))], s * s) * (s * s)
    tail = 2.0 * s * series + exponent * LN2_LOW  # small parts first, to keep the last bit
    return exponent * LN2_HIGH + (2.0 * s + tail)


def inverse_normal(p: Float64s) -> Float64s:
    """The quantile of the standard normal distribution at p in (0, 1), to about 1e-16 relative (AS241, PPND16)."""
    q = p - 0.5
    result = np.empty_like(p)
    central = np.abs(q) <= 0.425
    r = 0.180625 - q[central] * q[central]
    result[central] = q[central] * _polynomial(CENTRAL[0], r) / _polynomial(CENTRAL[1], r)
    tail = ~central
    r = np.sqrt(-log(np.minimum(p[tail], 1.0 - p[tail])))
    middle = _polynomial(MIDDLE[0], r - 1.6) / _polynomial(MIDDLE[1], r - 1.6)
    far = _polynomial(FAR[0], r - 5.0) / _polynomial(FAR[1], r - 5.0)
    size = np.where(r <= 5.0, middle, far)
    result[tail] = np.where(q[tail] < 0.0, -size, size)
    return result


def _polynomial(coefficients: Any, x: Float64s) -> Float64s:
    """Horner's rule, highest power first, in separate multiplications and additions."""
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result


def outside(target: Input, array: np.ndarray) -> str | None:
    """Why an input's values do not lie inside its bounds; None if they do, or if there are none."""
    if target.bounds is None:
        return None
    low, high = target.bounds
    wrong = ~((array >= low) & (array <= high))
    if not wrong.any():
        return None
    index = np.unravel_index(int(np.argmax(wrong)), array.shape)
    place = f"{target.name}{[int(k) for k in index] if index else ''}"
    limits = ", ".join("null" if math.isinf(limit) else f"{limit:g}" for limit in target.bounds)
    return f"{place} is {float(array[index]):.6g}, outside its bounds [{limits}]"


def filled(case: Case, target: Input) -> np.ndarray:
    """One input's array, C-contiguous, in its dtype."""
    over_time = target.role is Role.SEQUENCE or target.placement is Placement.SEQUENCE
    shape = (case.steps, *target.shape) if over_time else target.shape
    init, dtype = target.init, np.dtype(target.dtype)
    if init.kind in ("zeros", "ones"):
        return np.full(shape, init.kind == "ones", dtype=dtype)
    if init.kind == "file":
        assert init.file is not None
        with np.load(init.file, allow_pickle=False) as archive:
            return np.array(archive[str(init.key)], dtype=dtype, order="C")
    if init.kind == "value":
        return np.array(np.broadcast_to(np.array(init.value, dtype=dtype), shape), order="C")
    raw = words(derived_key(case.seed, target.role.value, target.name), math.prod(shape))
    return _drawn(init, target.shape, raw, dtype).reshape(shape)


def _drawn(init: Init, fans: tuple[int, ...], raw: Words, dtype: np.dtype[Any]) -> np.ndarray:
    """Random values of one init, flat: computed in float64 (integers in int64), then rounded to dtype."""
    if init.kind == "normal":
        return (init.a * normals(raw)).astype(dtype)
    if init.kind == "integers":
        return integers(raw, int(init.a), int(init.b)).astype(dtype)
    low, high = init.a, init.b
    if init.kind == "glorot":
        fan_in, fan_out = (*fans, *fans)[-2:] if len(fans) == 1 else (fans[-2:] or (1, 1))
        high = math.sqrt(6.0 / (fan_in + fan_out))
        low = -high
    drawn = (low + (high - low) * uniforms(raw)).astype(dtype)
    # rounding may reach `high`, which is excluded: log(1 - u) must stay finite
    below_high = np.nextafter(dtype.type(high), dtype.type(low))
    return np.asarray(np.minimum(drawn, below_high))
