"""How good the reference is: on functions whose derivative is known, and on the shipped models against their complex step.

    python benchmarks/reference.py [--probes 1000] [--kinks 20000] [--models]

One line per family: probes, the share whose true error lies inside the bound, the bound over the true error in the median, the
share refused (a bound above 1 % of the norm of gradient times direction, or values that are noise), and values per probe,
pilot and noise included (two parameters share them). Every function goes through the whole examination of the core: noise, pilot,
steps, retries within the budget. `--kinks` counts the
verdicts on correct models at or near a kink; `--models` needs the environment of the NumPy backend (built on first use).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker.serve import Worker
from gradcheck.examine import Examination
from gradcheck.model import Case, Gradient, Init, Input, Objective, Role
from gradcheck.session import Point, plain, tensors_of

Array = NDArray[Any]
Values = Callable[[dict[str, Array]], float]
Gradients = Callable[[dict[str, Array]], dict[str, Array]]


class InProcess:
    """A session over a plain function: what a worker would answer, without one. points: how many were evaluated."""

    rollout, has_complex_step = "unroll", False

    def __init__(self, case: Case, arrays: dict[str, Array], value: Values, gradients: Gradients) -> None:
        self.case, self.arrays, self.value, self.derive = case, arrays, value, gradients
        self.tensors, self.precision = tensors_of(arrays), case.dtype
        self.evaluations = 0

    def moved(self, point: Point) -> dict[str, Array]:
        return Worker.moved(self, plain(point))

    def values(self, points: list[Point]) -> tuple[Array, Array]:
        self.evaluations += len(points)
        with np.errstate(all="ignore"):
            rows = np.array([[float(self.value(self.moved(point)))] for point in points])
        return rows, np.abs(rows)

    def gradients(self, point: Point = (), cotangent: float = 1.0) -> dict[tuple[str, str], Gradient]:
        found = self.derive(self.moved(point))
        return {("f", name): Gradient("ok", np.asarray(cotangent * array)) for name, array in found.items()}


def session(
    arrays: dict[str, Array],
    value: Values,
    gradients: Gradients,
    seed: int = 0,
    bounds: dict[str, tuple[float, float]] | None = None,
) -> InProcess:
    """One objective `f` of parameters, differentiated by all of them. bounds: of those that have any."""
    inputs = tuple(
        Input(n, Role.PARAMETER, a.shape, str(a.dtype), Init("zeros"), bounds=(bounds or {}).get(n))
        for n, a in arrays.items()
    )
    objective = Objective("f", "f", "sum", "all", tuple(arrays))
    dtype = "float32" if any(a.dtype == np.float32 for a in arrays.values()) else "float64"
    case = Case("f", Path("f"), Path("f"), "f", 1, seed, dtype, inputs, (objective,), None, None, 0.0)
    return InProcess(case, arrays, value, gradients)


@dataclass
class Tally:
    """What was measured of one family. ratios: bound over true error."""

    probes: int = 0
    inside: int = 0
    refused: int = 0
    values: int = 0
    ratios: list[float] | None = None

    def line(self, name: str) -> str:
        judged = self.probes - self.refused
        share = 100 * self.inside / judged if judged else float("nan")
        ratio = float(np.median(self.ratios)) if self.ratios else float("nan")
        return (
            f"{name:40} {self.probes:6} {share:8.3f} {ratio:10.1f} "
            f"{100 * self.refused / max(self.probes, 1):8.2f} {self.values / max(self.probes, 1):7.1f}"
        )


HEADER = f"{'family':40} {'probes':>6} {'inside %':>8} {'bound/err':>10} {'refused %':>8} {'values':>7}"


def weigh(tally: Tally, exam: Examination) -> None:
    """Count one examination whose gradients are the truth: each probe's own error, bound and cost."""
    tally.ratios = tally.ratios if tally.ratios is not None else []
    exam.run()
    for name, estimate in exam.estimates.items():
        truth, size, _ = exam.along(0, name, exam.move(name, "probe"))
        error, bound = abs(float(estimate.value[0]) - truth), float(estimate.bound[0])
        own = 4 * 2.0**-52 * max(size, abs(truth))  # what the truth itself may be off by
        tally.probes += 1
        if not bound <= 1e-2 * size or exam.noisy[0]:
            tally.refused += 1
            continue
        tally.inside += error <= bound + own
        tally.ratios.append(bound / max(error, own))
    tally.values += exam.source.evaluations


# --- families of functions of a vector x (8 entries, all sizes) with their gradients ------------------------------------

Family = Callable[[np.random.Generator], tuple[Array, Callable[[Array], float], Callable[[Array], Array]]]


def waves(generator: np.random.Generator, fastest: float = 3.0) -> Any:
    w, b = generator.normal(size=(6, 8)) * generator.uniform(0.1, fastest), generator.uniform(0, 6, 6)
    return (
        generator.normal(size=8),
        lambda x: float(np.sin(w @ x + b).sum()),
        lambda x: w.T @ np.cos(w @ x + b),
    )


def network(generator: np.random.Generator) -> Any:
    w, u = generator.normal(size=(6, 8)), generator.normal(size=6)
    return (
        generator.normal(size=8),
        lambda x: float(u @ np.tanh(w @ x)),
        lambda x: w.T @ (u / np.cosh(w @ x) ** 2),
    )


def polynomial(generator: np.random.Generator) -> Any:
    c = generator.normal(size=8)
    return (
        generator.normal(size=8),
        lambda x: float(c @ (x**3 - 2 * x + x**5 / 10)),
        lambda x: c * (3 * x**2 - 2 + x**4 / 2),
    )


def exponential(generator: np.random.Generator) -> Any:
    c = generator.normal(size=8)
    return generator.normal(size=8), lambda x: float(np.exp(c @ x)), lambda x: c * np.exp(c @ x)


def near_singular(generator: np.random.Generator) -> Any:
    x = generator.uniform(
        0.02, 1.0, 8
    )  # the nearest entry moves through its singular point at a few per cent of the rms
    return x, lambda x: float((np.sqrt(x) + np.log(x)).sum()), lambda x: 0.5 / np.sqrt(x) + 1 / x


def oscillating(generator: np.random.Generator) -> Any:
    return waves(generator, 30.0)


def scaled(family: Family, low: float, high: float) -> Family:
    """The objective and, independently, the input scaled by powers of ten between low and high."""

    def build(generator: np.random.Generator) -> Any:
        x, value, gradient = family(generator)
        a, b = 10.0 ** generator.uniform(np.log10(low), np.log10(high), 2)
        return x * b, lambda y: a * value(y / b), lambda y: a / b * gradient(y / b)

    return build


def offset(family: Family, by: float) -> Family:
    def build(generator: np.random.Generator) -> Any:
        x, value, gradient = family(generator)
        return x, lambda y: value(y) + by, gradient

    return build


def single_precision(family: Family) -> Family:
    """Values rounded to float32, as a float32 forward has them at best; the inputs are float64."""

    def build(generator: np.random.Generator) -> Any:
        x, value, gradient = family(generator)
        return x, lambda y: float(np.float32(value(y.astype(np.float32).astype(np.float64)))), gradient

    return build


SMOOTH: dict[str, Family] = {
    "waves": waves,
    "tanh network": network,
    "polynomial": polynomial,
    "exponential": exponential,
    "waves, scaled 1e-12 to 1e12": scaled(waves, 1e-12, 1e12),
    "network, scaled 1e-12 to 1e12": scaled(network, 1e-12, 1e12),
    "oscillating": oscillating,
    "near singular": near_singular,
}
HARD: dict[str, Family] = {
    "waves, offset by 1e8": offset(waves, 1e8),
    "network, offset by 1e8": offset(network, 1e8),
    "waves, values in float32": single_precision(waves),
}


def measured(family: Family, probes: int, key: int, bounded: bool = False) -> Tally:
    """Many random members of a family. bounded: entries lie on or near bounds, so differences are one-sided."""
    tally, generator = Tally(), np.random.Generator(np.random.Philox(key))
    for seed in range(probes // 2):
        x, value, gradient = family(generator)
        parts = {"a": x[:4].copy(), "b": x[4:].copy()}
        bounds = {n: (float(p.min()), float("inf")) for n, p in parts.items()} if bounded else {}

        def whole(arrays: dict[str, Array], value: Any = value) -> float:
            return value(np.concatenate([arrays["a"], arrays["b"]]))

        def slopes(arrays: dict[str, Array], gradient: Any = gradient) -> dict[str, Array]:
            found = gradient(np.concatenate([arrays["a"], arrays["b"]]))
            return {"a": found[:4], "b": found[4:]}

        made: Any = session(parts, whole, slopes, seed, bounds)
        exam = Examination("unroll", made, None, None, 0.0)
        if family in IN_FLOAT32:
            exam.eps = 2.0**-23
        weigh(tally, exam)
    return tally


IN_FLOAT32 = (HARD["waves, values in float32"],)


# --- kinks ------------------------------------------------------------------------------------------------------------------


def kinked(generator: np.random.Generator) -> Any:
    """A small model with one unit at a kink or near it, 1e-13 to 0.3 away; its gradient takes one side, or the middle."""
    x = generator.normal(size=int(generator.integers(1, 12)))
    w = generator.normal(size=(int(generator.integers(1, 6)), x.size))
    b = generator.normal(size=len(w)) - w @ x
    b[0] = -(w @ x)[0] + generator.choice([-1, 0, 1], p=[0.45, 0.1, 0.45]) * 10.0 ** generator.uniform(-13, -0.5)
    c, smooth = generator.normal(size=len(w)), generator.normal(size=x.size)
    at_zero = generator.choice([0.0, 0.5, 1.0])

    def side(z: Array) -> Array:
        return np.heaviside(z, at_zero)

    kinds: list[tuple[Callable[[Array], Array], Callable[[Array], Array]]] = [
        (lambda z: np.maximum(z, 0), side),
        (np.abs, lambda z: 2 * side(z) - 1),
        (lambda z: np.maximum(z, 0.1 * z), lambda z: 0.1 + 0.9 * side(z)),
        (
            lambda z: np.minimum(z, 0) ** 2 - np.abs(np.tanh(z)),
            lambda z: 2 * np.minimum(z, 0) - (2 * side(z) - 1) / np.cosh(z) ** 2,
        ),
        (lambda z: np.clip(z, 0, 0.5), lambda z: side(z) * (z < 0.5)),
    ]
    bent, slope = kinds[int(generator.integers(len(kinds)))]
    return (
        x,
        lambda y: float(c @ bent(w @ y + b) + np.sin(smooth @ y)),
        lambda y: w.T @ (c * slope(w @ y + b)) + smooth * np.cos(smooth @ y),
    )


def at_kinks(trials: int, key: int) -> Counter[str]:
    """The verdicts, with their codes, on the correct gradients of so many kinked models."""
    counts: Counter[str] = Counter()
    generator = np.random.Generator(np.random.Philox(key))
    for seed in range(trials):
        x, value, gradient = kinked(generator)
        made: Any = session(
            {"x": x},
            lambda a, value=value: value(a["x"]),  # type: ignore[misc]
            lambda a, gradient=gradient: {"x": gradient(a["x"])},  # type: ignore[misc]
            seed,
        )
        check = Examination("unroll", made, None, None, 0.0).run().checks[0].check
        counts[" ".join([check.verdict, *check.codes])] += 1
    return counts


# --- the shipped models ---------------------------------------------------------------------------------------------------


def models(seeds: int) -> Iterator[tuple[str, Tally]]:
    """Every shipped case that has a complex step on NumPy, its differences held against it."""
    from importlib.resources import files

    from gradcheck.case_file import collect, load
    from gradcheck.catalog import load_backends
    from gradcheck.crew import Crew
    from gradcheck.data import arrays as seeded
    from gradcheck.workers import Limits

    catalog = load_backends()
    with Crew(catalog, given={}, offline=False, limits=Limits(), jobs=1, progress=lambda text: None) as crew:
        for path in collect([Path(str(files("gradcheck._cases")))]):
            case, tally = load(path), Tally()
            if case.dtype != "float64":
                continue
            for seed in range(seeds):
                one = replace(case, seed=seed, options={})

                def job(one: Case = one, tally: Tally = tally) -> None:
                    with crew.session(one, "unroll", seeded(one)) as live:
                        compare_model(one, live, tally)

                crew.submit(one, "unroll", job).result()
            if tally.probes:
                yield case.name, tally


def compare_model(case: Case, live: Any, tally: Tally) -> None:
    exact = Examination("unroll", live, None, None, 0.0)
    exact.run()
    if not exact.complex:
        return
    live.has_complex_step, before = False, live.evaluations
    plainly = Examination("unroll", live, None, None, 0.0)
    plainly.run()
    tally.values += live.evaluations - before
    tally.ratios = tally.ratios if tally.ratios is not None else []
    for name, estimate in plainly.estimates.items():
        for i, objective in enumerate(case.objectives):
            if name not in objective.wrt or plainly.noisy[i]:
                continue
            size = plainly.along(i, name, plainly.move(name, "probe"))[1]
            error = abs(float(estimate.value[i] - exact.estimates[name].value[i]))
            own, bound = float(exact.estimates[name].bound[i]), float(estimate.bound[i])
            if size == 0:
                continue
            tally.probes += 1
            if not bound <= 1e-2 * size:
                tally.refused += 1
                continue
            tally.inside += error <= bound + own
            tally.ratios.append(bound / max(error, 2.0**-52 * size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--probes", type=int, default=1000, help="per family")
    parser.add_argument("--kinks", type=int, default=0, help="correct models at or near a kink: how often called what")
    parser.add_argument("--models", action="store_true", help="the shipped models too, on NumPy")
    chosen = parser.parse_args()
    print(HEADER)
    for key, (name, family) in enumerate({**SMOOTH, **HARD}.items()):
        print(measured(family, chosen.probes, key).line(name), flush=True)
    for key, (name, family) in enumerate(SMOOTH.items()):
        print(measured(family, chosen.probes, 100 + key, bounded=True).line(f"{name}, on a bound"), flush=True)
    if chosen.kinks:
        print(f"{chosen.kinks} correct models at a kink:", dict(at_kinks(chosen.kinks, 77).most_common()), flush=True)
    if chosen.models:
        for name, tally in models(3):
            print(tally.line(name), flush=True)


if __name__ == "__main__":
    main()
