"""One checker on the benchmark's models, in a process of its own: one JSON line for everything measured. See peers.py.

    python measure.py CHECKER '{"stage": "cost", "size": 728}'
    python measure.py CHECKER '{"stage": "errors", "seeds": 8}'
    python measure.py CHECKER '{"stage": "correct", "alarms": 4}'

The model is an RNN with a reparameterised latent that feeds the carry, and an ELBO-like scalar loss, written alike for torch,
JAX and NumPy with autograd. `multiplier` plants an error: the reverse pass multiplies the gradient of W_h by it.
"""

from __future__ import annotations

import json
import re
import sys
import time
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BATCH = 4
SHAPES = {
    60: (2, 4, 2),
    728: (8, 14, 7),
    6_000: (9, 60, 7),
    20_000: (8, 125, 6),
    1_000_000: (100, 800, 83),
}  # P: inputs, hidden, latent
NAMES = ("W_mu", "W_s", "W_x", "W_h", "W_z", "b_h", "W_o")
FAULTED = "W_h"
FRAMEWORK = {"torch slow": "torch", "torch fast": "torch", "jax": "jax", "scipy": "numpy", "numdifftools": "numpy"}
FRAMEWORK |= {f"gradcheck {name}": name for name in ("torch", "jax", "numpy")}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "weights x3": {"weights": 3.0},
    "T = 40": {"steps": 40},
    "float32": {"dtype": "float32"},
    "relu": {"activation": "relu", "weights": 0.6},
    "loss x1e-5": {"scale": 1e-5},
    "offset 1e8": {"offset": 1e8},
}
USER_RULE = 1e-5  # for those that return numbers and no verdict: what a user would ask of them


@dataclass(frozen=True)
class Settings:
    size: int = 728
    seed: int = 0
    steps: int = 8
    dtype: str = "float64"
    activation: str = "tanh"
    weights: float = 1.0
    scale: float = 1.0
    offset: float = 0.0


def data(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters in the order of NAMES, fixed inputs), NumPy arrays."""
    inputs, hidden, latent = SHAPES[settings.size]
    rng = np.random.default_rng(settings.seed)
    shapes = {
        "W_mu": (hidden, latent),
        "W_s": (hidden, latent),
        "W_x": (inputs, hidden),
        "W_h": (hidden, hidden),
        "W_z": (latent, hidden),
        "b_h": (hidden,),
        "W_o": (hidden, inputs),
    }
    parameters = {
        n: settings.weights * rng.standard_normal(s) / np.sqrt(s[0] if len(s) > 1 else 4) for n, s in shapes.items()
    }
    fixed = {
        "x": rng.standard_normal((settings.steps, BATCH, inputs)),
        "eps": rng.standard_normal((settings.steps, BATCH, latent)),
        "h0": 0.5 * rng.standard_normal((BATCH, hidden)),
    }
    assert sum(p.size for p in parameters.values()) == settings.size
    return tuple({n: a.astype(settings.dtype) for n, a in part.items()} for part in (parameters, fixed))  # type: ignore


def step(xp: Any, activation: Any, p: Any, h: Any, x: Any, eps: Any) -> tuple[Any, Any]:
    """(next carry, this step's loss). p: the parameters in the order of NAMES."""
    w_mu, w_s, w_x, w_h, w_z, b_h, w_o = p
    mu, s = h @ w_mu, h @ w_s
    z = mu + xp.exp(0.5 * s) * eps
    h = activation(x @ w_x + h @ w_h + z @ w_z + b_h)
    return h, ((h @ w_o - x) ** 2).sum() + 0.5 * (mu**2 + xp.exp(s) - s - 1).sum()


# --- the model in three frameworks: value(*arrays), gradient(*arrays, multiplier), arrays in the order of NAMES --------


class TorchModel:
    def __init__(self, settings: Settings) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch, self.settings = torch, settings
        self.parameters, fixed = data(settings)
        self.fixed = {n: torch.from_numpy(a) for n, a in fixed.items()}
        self.calls = 0
        self.multiplier: Any = None

        class Planted(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, w: Any, multiplier: Any) -> Any:
                ctx.multiplier = multiplier
                return w.view_as(w)

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return g * ctx.multiplier, None

        self.planted = Planted

    def function(self, *p: Any) -> Any:
        """The loss of torch tensors, with the planted error."""
        self.calls += 1
        if self.multiplier is not None:
            k = NAMES.index(FAULTED)
            multiplier = self.torch.from_numpy(self.multiplier)
            p = (*p[:k], self.planted.apply(p[k], multiplier), *p[k + 1 :])
        activation, h, loss = getattr(self.torch, self.settings.activation), self.fixed["h0"], 0.0
        for x, eps in zip(self.fixed["x"], self.fixed["eps"], strict=True):
            h, term = step(self.torch, activation, p, h, x, eps)
            loss = loss + term
        return self.settings.scale * loss + self.settings.offset

    def value(self, *arrays: Any) -> float:
        with self.torch.no_grad():
            return float(self.function(*map(self.torch.from_numpy, arrays)))

    def gradient(self, *arrays: Any) -> list[Any]:
        leaves = [self.torch.from_numpy(a).clone().requires_grad_() for a in arrays]
        return [g.numpy() for g in self.torch.autograd.grad(self.function(*leaves), leaves)]


class JaxModel:
    def __init__(self, settings: Settings) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.settings = jax, settings
        self.parameters, self.fixed = data(settings)
        self.calls = 0
        self.multiplier: Any = None
        self.ones = np.ones_like(self.parameters[FAULTED])

        @jax.custom_vjp
        def planted(w: Any, multiplier: Any) -> Any:
            return w

        planted.defvjp(lambda w, m: (w, m), lambda m, g: (g * m, jax.numpy.zeros_like(m)))
        jnp = jax.numpy
        activation = jnp.tanh if settings.activation == "tanh" else jax.nn.relu

        def loss(multiplier: Any, *p: Any) -> Any:
            k = NAMES.index(FAULTED)
            p = (*p[:k], planted(p[k], multiplier), *p[k + 1 :])

            def body(h: Any, now: Any) -> Any:
                return step(jnp, activation, p, h, *now)

            _, terms = jax.lax.scan(body, self.fixed["h0"], (self.fixed["x"], self.fixed["eps"]))
            total = settings.scale * terms.sum() + settings.offset
            return jnp.asarray(total, settings.dtype)

        self.loss = jax.jit(loss)
        self.reverse = jax.jit(jax.grad(loss, argnums=tuple(range(1, 1 + len(NAMES)))))

    def function(self, *p: Any) -> Any:
        self.calls += 1
        multiplier = self.ones if self.multiplier is None else self.multiplier
        return self.loss(multiplier, *p)

    def value(self, *arrays: Any) -> float:
        return float(self.function(*arrays))

    def gradient(self, *arrays: Any) -> list[Any]:
        multiplier = self.ones if self.multiplier is None else self.multiplier
        return [np.asarray(g) for g in self.reverse(multiplier, *arrays)]


class NumpyModel:
    def __init__(self, settings: Settings) -> None:
        import autograd

        self.settings = settings
        self.parameters, self.fixed = data(settings)
        self.calls = 0
        self.multiplier: Any = None
        self.reverse = autograd.grad(lambda p: self.loss(autograd.numpy, p))

    def loss(self, xp: Any, p: Any) -> Any:
        activation = xp.tanh if self.settings.activation == "tanh" else lambda a: xp.maximum(a, 0.0)
        h, loss = self.fixed["h0"], 0.0
        for x, eps in zip(self.fixed["x"], self.fixed["eps"], strict=True):
            h, term = step(xp, activation, p, h, x, eps)
            loss = loss + term
        return self.settings.scale * loss + self.settings.offset

    def value(self, *arrays: Any) -> float:
        self.calls += 1
        return float(self.loss(np, arrays))

    def gradient(self, *arrays: Any) -> list[Any]:
        gradients = list(self.reverse(tuple(arrays)))
        if self.multiplier is not None:
            k = NAMES.index(FAULTED)
            gradients[k] = gradients[k] * self.multiplier
        return gradients


MODELS = {"torch": TorchModel, "jax": JaxModel, "numpy": NumpyModel}


# --- the checkers: verdict ("pass", "wrong", "refused"), location, values ----------------------------------------------


def torch_gradcheck(model: Any, fast: bool) -> dict[str, Any]:
    import torch
    from torch.autograd.gradcheck import GradcheckError

    leaves = [torch.from_numpy(a).clone().requires_grad_() for a in model.parameters.values()]
    try:
        torch.autograd.gradcheck(model.function, leaves, fast_mode=fast)
    except GradcheckError as error:
        where = re.search(r"with respect to input (\d+)", str(error))
        return {"verdict": "wrong", "where": NAMES[int(where[1])] if where else ""}
    return {"verdict": "pass"}


def jax_check_grads(model: Any) -> dict[str, Any]:
    from jax.test_util import check_grads

    try:
        check_grads(model.function, tuple(model.parameters.values()), order=1, modes=("rev",))
    except AssertionError:
        return {"verdict": "wrong", "where": ""}
    return {"verdict": "pass"}


def flat_functions(model: Any) -> tuple[Any, Any, Any]:
    """(start, value, gradient) over one flat vector, as SciPy and numdifftools want them."""
    arrays = list(model.parameters.values())
    ends = np.cumsum([a.size for a in arrays])[:-1]

    def split(flat: Any) -> list[Any]:
        return [part.reshape(a.shape) for part, a in zip(np.split(flat, ends), arrays, strict=True)]

    start = np.concatenate([a.reshape(-1) for a in arrays])
    return (
        start,
        lambda flat: model.value(*split(flat)),
        lambda flat: np.concatenate([g.reshape(-1) for g in model.gradient(*split(flat))]),
    )


def scipy_check_grad(model: Any) -> dict[str, Any]:
    from scipy.optimize import check_grad

    start, value, gradient = flat_functions(model)
    error = float(check_grad(value, gradient, start))
    wrong = not error <= USER_RULE * float(np.linalg.norm(gradient(start)))
    return {"verdict": "wrong" if wrong else "pass", "where": ""}


_reference: dict[Any, Any] = {}


def numdifftools_gradient(model: Any) -> dict[str, Any]:
    """Its numbers do not depend on the planted error, so they are taken once per model and its values counted each time."""
    import numdifftools

    start, value, gradient = flat_functions(model)
    if _reference.get("of") != model.settings:
        _reference.update(of=model.settings, numbers=numdifftools.Gradient(value)(start), calls=model.calls)
    numbers, analytic = _reference["numbers"], gradient(start)
    model.calls = _reference["calls"]
    error = np.abs(analytic - numbers)
    if (error <= USER_RULE * np.abs(numbers) + USER_RULE * 1e-3 * np.abs(numbers).max()).all():
        return {"verdict": "pass"}
    position = int(np.argmax(error))
    for name, array in model.parameters.items():
        if position < array.size:
            return {
                "verdict": "wrong",
                "where": name,
                "entry": [int(k) for k in np.unravel_index(position, array.shape)],
            }
        position -= array.size
    raise AssertionError


def reachable_gradcheck() -> None:
    """This checkout's gradcheck, installed or not: its backends lie in a folder of another name."""
    sys.path.insert(0, str(ROOT))
    package = types.ModuleType("gradcheck._backends")
    package.__path__ = [str(ROOT / "backends")]
    sys.modules["gradcheck._backends"] = package


class InProcess:
    """A gradcheck session over one of the models above: values and gradients at moved points, counted."""

    rollout, has_complex_step = "unroll", False

    def __init__(self, model: Any) -> None:
        from gradcheck.model import Case, Init, Input, Objective, Role

        settings, self.model, self.evaluations = model.settings, model, 0
        self.arrays = model.parameters
        inputs = tuple(
            Input(n, Role.PARAMETER, a.shape, settings.dtype, Init("normal", 1.0)) for n, a in self.arrays.items()
        )
        here = Path(__file__)
        wrt = (Objective("loss", "loss", "sum", "all", NAMES),)
        self.case = Case(
            "peers", here, here, "step", settings.steps, settings.seed, settings.dtype, inputs, wrt, None, None, 0.0
        )

    def moved(self, point: Any) -> list[Any]:
        from gradcheck._backends._worker import directions

        flat: dict[str, Any] = {}
        for name, coefficient, move in point:
            if name not in flat:
                flat[name] = self.arrays[name].astype(np.float64).reshape(-1)
            directions.add(flat[name], float(coefficient), move)
        return [flat[n].reshape(a.shape).astype(a.dtype) if n in flat else a for n, a in self.arrays.items()]

    def values(self, points: Any) -> tuple[Any, Any]:
        self.evaluations += len(points)
        values = np.array([[self.model.value(*self.moved(point))] for point in points], dtype=np.float64)
        return values, np.abs(values)

    def gradients(self, point: Any = (), cotangent: float = 1.0) -> dict[Any, Any]:
        from gradcheck.model import Gradient

        arrays = self.model.gradient(*self.moved(point))
        return {("loss", n): Gradient("ok", cotangent * g, "") for n, g in zip(NAMES, arrays, strict=True)}


def gradcheck_examination(model: Any) -> dict[str, Any]:
    from dataclasses import replace

    from gradcheck.examine import Examination

    session, twin = InProcess(model), None
    if model.settings.dtype == "float32":  # the same inputs, widened: what the command does
        wide = type(model)(replace(model.settings, dtype="float64"))
        for name, array in model.parameters.items():
            wide.parameters[name] = array.astype(np.float64)
        wide.fixed = {
            n: a.double() if hasattr(a, "double") else np.asarray(a, np.float64) for n, a in model.fixed.items()
        }
        twin = InProcess(wide)
    result = Examination("peers", session, twin, None, 0.0).run()
    checks = [evidence.check for evidence in result.checks]
    answer: dict[str, Any] = {"verdict": "pass", "values": result.evaluations}
    failing = [check for check in checks if check.failing]
    refused = [check for check in checks if not check.failing and str(check.verdict) != "pass"]
    if failing:
        worst = failing[0].worst
        answer |= {"verdict": "wrong", "where": failing[0].parameter, "entry": list(worst.index) if worst else None}
        answer["said"] = [f"{c.parameter}: {c.verdict} {' '.join(c.codes)} {c.reason}" for c in failing]
    elif refused:
        answer |= {"verdict": "refused", "said": [f"{c.parameter}: {' '.join(c.codes)} {c.reason}" for c in refused]}
    return answer


def checked(checker: str, model: Any) -> dict[str, Any]:
    """One check with its seconds, values and memory."""
    model.calls = 0
    memory_before = reset_peak()
    started = time.perf_counter()
    if checker.startswith("torch"):
        result = torch_gradcheck(model, fast=checker.endswith("fast"))
    elif checker == "jax":
        result = jax_check_grads(model)
    elif checker == "scipy":
        result = scipy_check_grad(model)
    elif checker == "numdifftools":
        result = numdifftools_gradient(model)
    else:
        result = gradcheck_examination(model)
    seconds = time.perf_counter() - started
    return {"values": model.calls, "seconds": seconds, "peak_mb": memory("VmHWM") - memory_before} | result


def reset_peak() -> float:
    """Start the kernel's record of peak memory anew; returns the MB resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


# --- what is measured -------------------------------------------------------------------------------------------------


def built(checker: str, settings: Settings) -> Any:
    """The model, warm: framework start-up and compilation are no checker's fault."""
    model = MODELS[FRAMEWORK[checker]](settings)
    arrays = list(model.parameters.values())
    model.value(*arrays)
    model.gradient(*arrays)
    return model


def entry_at_or_above_median(model: Any, seed: int, of: int) -> tuple[int, ...]:
    gradient = model.gradient(*model.parameters.values())[NAMES.index(FAULTED)]
    size = np.abs(gradient).reshape(-1)
    candidates = np.flatnonzero(size >= np.median(size))
    index = candidates[int(candidates.size * (seed + 0.5) / of)]
    return tuple(int(k) for k in np.unravel_index(index, gradient.shape))


def planted(model: Any, index: tuple[int, ...] | None, factor: float) -> Any:
    multiplier = np.ones_like(model.parameters[FAULTED])
    multiplier[slice(None) if index is None else index] = factor
    return multiplier


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def cost(checker: str, size: int) -> None:
    """A passing and a failing check of one size."""
    checked(checker, built(checker, Settings(size=60)))  # its own imports
    model = built(checker, Settings(size=size))
    say(kind="ready")
    say(kind="passing", **checked(checker, model))
    index = entry_at_or_above_median(model, 0, 1)
    model.multiplier = planted(model, index, 1.01)
    _reference.clear()
    result = checked(checker, model)
    say(kind="failing", named=result.get("where") == FAULTED and result.get("entry") == list(index), **result)


def errors(checker: str, seeds: int) -> None:
    """Planted errors, one model per seed."""
    say(kind="ready")
    for seed in range(seeds):
        model = built(checker, Settings(seed=seed))
        index = entry_at_or_above_median(model, seed, seeds)
        for name, where, factor in (
            ("entry x1.01", index, 1.01),
            ("entry x1.001", index, 1.001),
            ("matrix x1.001", None, 1.001),
        ):
            model.multiplier = planted(model, where, factor)
            result = checked(checker, model)
            named = where is not None and result.get("where") == FAULTED and result.get("entry") == list(where)
            say(kind="error", name=name, seed=seed, named=named, **result)
        model = built(checker, Settings(seed=seed, scale=1e-5))
        model.multiplier = planted(model, None, 0.0)
        say(kind="error", name="zeroed at 1e-5", seed=seed, **checked(checker, model))
    for seed in range(seeds if checker == "jax" or checker.startswith("gradcheck") else 0):  # torch fails correct ones
        model = built(checker, Settings(seed=seed, dtype="float32"))
        index = entry_at_or_above_median(model, seed, seeds)
        model.multiplier = planted(model, index, 1.01)
        result = checked(checker, model)
        named = result.get("where") == FAULTED and result.get("entry") == list(index)
        say(kind="error", name="float32 entry x1.01", seed=seed, named=named, **result)


def correct(checker: str, alarms: int) -> None:
    """Correct models, on none of which a checker may find anything."""
    say(kind="ready")
    for seed in range(alarms):
        for name, changes in CONFIGURATIONS.items():
            if changes.get("dtype") == "float32" and checker in ("scipy", "numdifftools"):
                continue
            model = built(checker, Settings(seed=100 + seed, **changes))
            say(kind="correct", name=name, seed=100 + seed, **checked(checker, model))


def main() -> None:
    checker, job = sys.argv[1], json.loads(sys.argv[2])
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    if checker.startswith("gradcheck"):
        reachable_gradcheck()
    {"cost": cost, "errors": errors, "correct": correct}[job.pop("stage")](checker, **job)


if __name__ == "__main__":
    main()
