"""One checker on the benchmark's models, in a process of its own: one JSON line for everything measured. See peers.py.

    python measure.py CHECKER '{"stage": "cost", "size": 728}'
    python measure.py CHECKER '{"stage": "errors", "seeds": 8}'
    python measure.py CHECKER '{"stage": "correct", "seeds": 4}'

The model is an RNN with a reparameterised latent that feeds the carry (rnn_vae.py), and an ELBO-like scalar loss, for torch, JAX,
PyTensor and NumPy with autograd. `multiplier` plants an error: the reverse pass multiplies the gradient of W_h by it.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from rnn_vae import NAMES, step  # noqa: E402 - it lies beside this file

ROOT = HERE.parents[1]
BATCH = 4
SHAPES = {
    60: (2, 4, 2),
    728: (8, 14, 7),
    6_000: (9, 60, 7),
    20_000: (8, 125, 6),
    1_000_000: (100, 800, 83),
}  # P: inputs, hidden, latent
FAULTED = "W_h"
FRAMEWORK = {
    "torch slow": "torch",
    "torch fast": "torch",
    "jax": "jax",
    "pytensor": "pytensor",
    "scipy": "numpy",
    "numdifftools": "numpy",
    "gradcheck torch": "torch",
    "gradcheck jax": "jax",
    "gradcheck numpy": "numpy",
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "weights x3": {"weights": 3.0},
    "T = 40": {"steps": 40},
    "weights x3, T = 40": {"weights": 3.0, "steps": 40},
    "float32": {"dtype": "float32"},
    "float32, x3, T = 40": {"dtype": "float32", "weights": 3.0, "steps": 40},
    "relu": {"activation": "relu", "weights": 0.6},
    "loss x1e-5": {"scale": 1e-5},
    "offset 1e8": {"offset": 1e8},
    "noise": {"noise": True},
}
FLOAT32: dict[str, dict[str, Any]] = {  # the float32 gradients in which one entry is made 1 % too large
    "P = 728": {},
    "P = 6 000": {"size": 6_000},
    "P = 20 000": {"size": 20_000},
    "x3, T = 40": {"weights": 3.0, "steps": 40},
}
FEWER_SEEDS = 8  # models of these, but for the first
FLOAT32_CHECKERS = (
    "jax",
    "gradcheck torch",
    "gradcheck jax",
    "gradcheck numpy",
)  # torch and PyTensor fail correct ones
USER_RULE = 1e-5  # for those that return numbers and no verdict: what a user would ask of them


@dataclass(frozen=True)
class Settings:
    """noise: the latent's draws are made in the model, from the same seed in every evaluation."""

    size: int = 728
    seed: int = 0
    steps: int = 8
    dtype: str = "float64"
    activation: str = "tanh"
    weights: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    noise: bool = False

    @property
    def draws(self) -> tuple[int, int, int]:
        return self.steps, BATCH, SHAPES[self.size][2]


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
        "eps": rng.standard_normal(settings.draws),
        "h0": 0.5 * rng.standard_normal((BATCH, hidden)),
    }
    assert sum(p.size for p in parameters.values()) == settings.size
    return tuple({n: a.astype(settings.dtype) for n, a in part.items()} for part in (parameters, fixed))  # type: ignore


# --- the model in four frameworks -------------------------------------------------------------------------------------


class Model:
    """value(*arrays) and gradient(*arrays, cotangent), arrays in the order of NAMES. calls: forward evaluations so far."""

    reverse_passes = 0  # that gradcheck has asked for

    def __init__(self, settings: Settings) -> None:
        self.settings, self.calls = settings, 0
        self.parameters, self.fixed = data(settings)
        self.multiplier: Any = None
        self.build()

    def build(self) -> None:
        raise NotImplementedError

    def widened(self) -> Any:
        """The same model in float64, without the error: at the same inputs, not at inputs drawn anew."""
        wide = type(self).__new__(type(self))
        wide.settings, wide.calls, wide.multiplier = replace(self.settings, dtype="float64"), 0, None
        wide.parameters, wide.fixed = (
            {n: a.astype(np.float64) for n, a in part.items()} for part in (self.parameters, self.fixed)
        )
        wide.build()
        return wide

    def loss(self, xp: Any, activation: Any, p: Any, fixed: Any) -> Any:
        """The manual unroll."""
        h, loss = fixed["h0"], 0.0
        for t in range(self.settings.steps):
            h, term = step(xp, activation, p, h, fixed["x"][t], fixed["eps"][t])
            loss = loss + term
        return self.settings.scale * loss + self.settings.offset


class TorchModel(Model):
    def build(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.tensors = {n: torch.from_numpy(a) for n, a in self.fixed.items()}

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
        torch, fixed = self.torch, dict(self.tensors)
        if self.settings.noise:
            seeded = torch.Generator().manual_seed(self.settings.seed)
            fixed["eps"] = torch.randn(self.settings.draws, generator=seeded, dtype=fixed["eps"].dtype)
        if self.multiplier is not None:
            k = NAMES.index(FAULTED)
            p = (*p[:k], self.planted.apply(p[k], torch.from_numpy(self.multiplier)), *p[k + 1 :])
        return self.loss(torch, getattr(torch, self.settings.activation), p, fixed)

    def value(self, *arrays: Any) -> float:
        with self.torch.no_grad():
            return float(self.function(*map(self.torch.from_numpy, arrays)))

    def gradient(self, *arrays: Any, cotangent: float = 1.0) -> list[Any]:
        leaves = [self.torch.from_numpy(a).clone().requires_grad_() for a in arrays]
        loss = self.function(*leaves)
        return [g.numpy() for g in self.torch.autograd.grad(loss, leaves, self.torch.full_like(loss, cotangent))]


class JaxModel(Model):
    def build(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        settings, jnp = self.settings, jax.numpy
        self.ones = np.ones_like(self.parameters[FAULTED])
        activation = jnp.tanh if settings.activation == "tanh" else jax.nn.relu

        @jax.custom_vjp
        def planted(w: Any, multiplier: Any) -> Any:
            return w

        planted.defvjp(lambda w, m: (w, m), lambda m, g: (g * m, jnp.zeros_like(m)))

        def loss(multiplier: Any, *p: Any) -> Any:
            k = NAMES.index(FAULTED)
            p = (*p[:k], planted(p[k], multiplier), *p[k + 1 :])
            eps = self.fixed["eps"]
            if settings.noise:
                eps = jax.random.normal(jax.random.key(settings.seed), settings.draws, settings.dtype)

            def body(h: Any, now: Any) -> Any:
                return step(jnp, activation, p, h, *now)

            _, terms = jax.lax.scan(body, self.fixed["h0"], (self.fixed["x"], eps))
            return jnp.asarray(settings.scale * terms.sum() + settings.offset, settings.dtype)

        def gradient(cotangent: Any, multiplier: Any, *p: Any) -> Any:
            return jax.vjp(lambda *q: loss(multiplier, *q), *p)[1](cotangent)

        self.forward, self.reverse = jax.jit(loss), jax.jit(gradient)

    def function(self, *p: Any) -> Any:
        self.calls += 1
        return self.forward(self.ones if self.multiplier is None else self.multiplier, *p)

    def value(self, *arrays: Any) -> float:
        return float(self.function(*arrays))

    def gradient(self, *arrays: Any, cotangent: float = 1.0) -> list[Any]:
        multiplier = self.ones if self.multiplier is None else self.multiplier
        return [np.asarray(g) for g in self.reverse(np.asarray(cotangent, self.settings.dtype), multiplier, *arrays)]


class NumpyModel(Model):
    def build(self) -> None:
        import autograd

        self.vjp = autograd.make_vjp(lambda p: self.now(autograd.numpy, p))

    def now(self, xp: Any, p: Any) -> Any:
        activation = xp.tanh if self.settings.activation == "tanh" else lambda a: xp.maximum(a, 0.0)
        fixed = dict(self.fixed)
        if self.settings.noise:
            fixed["eps"] = np.random.default_rng(self.settings.seed).standard_normal(self.settings.draws)
        return self.loss(xp, activation, p, fixed)

    def value(self, *arrays: Any) -> float:
        self.calls += 1
        return float(self.now(np, arrays))

    def gradient(self, *arrays: Any, cotangent: float = 1.0) -> list[Any]:
        dtype = self.settings.dtype
        vjp, _ = self.vjp(tuple(arrays))
        gradients = [g.astype(dtype) for g in vjp(np.asarray(cotangent, dtype))]
        if self.multiplier is not None:
            k = NAMES.index(FAULTED)
            gradients[k] = gradients[k] * self.multiplier
        return gradients


class PytensorModel(Model):
    """Only as verify_grad wants it: a function of symbolic inputs, unrolled in Python."""

    def build(self) -> None:
        import pytensor
        import pytensor.tensor as pt

        pytensor.config.cxx = ""
        pytensor.config.floatX = self.settings.dtype
        self.pytensor, self.pt = pytensor, pt

    def function(self, *p: Any) -> Any:
        pt, fixed = self.pt, {n: self.pt.constant(a) for n, a in self.fixed.items()}
        if self.settings.noise:  # its generator is not updated: the same draws in every evaluation
            rng = self.pytensor.shared(np.random.default_rng(self.settings.seed))
            fixed["eps"] = pt.random.normal(0.0, 1.0, size=self.settings.draws, rng=rng)
        if self.multiplier is not None:  # the value stays what it is, to the bit; its derivative is the multiplier
            k = NAMES.index(FAULTED)
            off = p[k] - self.pytensor.gradient.disconnected_grad(p[k])
            p = (*p[:k], p[k] + off * pt.constant(self.multiplier - 1), *p[k + 1 :])
        activation = pt.tanh if self.settings.activation == "tanh" else lambda a: pt.maximum(a, 0.0)
        return self.loss(pt, activation, p, fixed)


MODELS: dict[str, Any] = {"torch": TorchModel, "jax": JaxModel, "numpy": NumpyModel, "pytensor": PytensorModel}


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


def pytensor_verify_grad(model: Any) -> dict[str, Any]:
    """Under Python's linker without rewrites: compiling the 8 unrolled steps otherwise takes minutes. Values are counted below
    verify_grad, in the object that takes its differences.
    """
    from pytensor import gradient
    from pytensor.compile.mode import Mode

    original = gradient.numeric_grad

    class Counting(original):  # type: ignore
        def __init__(self, f: Any, *arguments: Any, **named: Any) -> None:
            def counted(*p: Any) -> Any:
                model.calls += 1
                return f(*p)

            super().__init__(counted, *arguments, **named)

    gradient.numeric_grad = Counting
    model.calls += 1  # its look at the shape of the output
    try:
        mode = Mode(linker="py", optimizer="fast_compile")
        rng = np.random.default_rng(model.settings.seed)
        gradient.verify_grad(model.function, list(model.parameters.values()), rng=rng, mode=mode)
    except gradient.GradientError as error:
        name = NAMES[error.arg]
        shape = model.parameters[name].shape
        return {"verdict": "wrong", "where": name, "entry": [int(k) for k in np.unravel_index(error.err_pos, shape)]}
    finally:
        gradient.numeric_grad = original
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
    """What gradcheck.workers.Worker is to a session, but without a process: its jobs go straight to the worker's operations."""

    starts, alive = 1, True

    def __init__(self) -> None:
        from gradcheck._backends._worker.serve import Worker, load_adapter

        self.worker = Worker(load_adapter(str(HERE / "adapter.py")))

    def call(self, operation: str, **job: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self.worker, operation)(**job)
        return answer


def gradcheck_case(model: Any) -> Any:
    """The model as a case: gradcheck's own words for it. Its step is the model's, which the adapter calls in its own way."""
    from gradcheck.model import Case, Init, Input, Objective, Role

    settings, file = model.settings, HERE / "rnn_vae.py"
    inputs = tuple(
        Input(n, Role.PARAMETER, a.shape, settings.dtype, Init("normal")) for n, a in model.parameters.items()
    )
    return Case(
        name="peers",
        path=file,
        step_file=file,
        step_function="step",
        steps=settings.steps,
        seed=settings.seed,
        dtype=settings.dtype,
        inputs=inputs,
        objectives=(Objective("loss", "loss", "sum", "all", NAMES),),
        backends=None,
        rtol=None,
        atol=0.0,
        options={"peers": {"model": model}},
    )


def gradcheck_examination(model: Any) -> dict[str, Any]:
    """What `gradcheck run` does with one case on one backend before the diagnosis: float32 is held against a float64 twin."""
    from gradcheck.examine import Examination, float64_twin
    from gradcheck.session import Session

    worker, case, arrays = InProcess(), gradcheck_case(model), model.parameters
    session, twin = Session(worker, case, "peers", "unroll", arrays), None  # type: ignore
    if case.dtype == "float32":
        wide, widened = float64_twin(case, arrays)
        twin = Session(worker, wide, "peers", "unroll", widened)  # type: ignore
    result = Examination("peers", session, twin, case.rtol, case.atol).run()
    checks = [evidence.check for evidence in result.checks]
    failing = [c for c in checks if c.failing]
    refused = [c for c in checks if not c.failing and str(c.verdict) != "pass"]
    answer: dict[str, Any] = {
        "verdict": "wrong" if failing else "refused" if refused else "pass",
        "values": result.evaluations,
        "reverse_passes": model.reverse_passes,
        "by": {c.parameter: str(c.verdict) for c in checks},
        "said": [f"{c.parameter}: {c.verdict} {' '.join(c.codes)} {c.reason}".strip() for c in failing + refused],
    }
    if failing:
        worst = failing[0].worst
        answer |= {"where": ", ".join(c.parameter for c in failing), "entry": list(worst.index) if worst else None}
    return answer


CHECKS: dict[str, Any] = {
    "torch slow": lambda model: torch_gradcheck(model, fast=False),
    "torch fast": lambda model: torch_gradcheck(model, fast=True),
    "jax": jax_check_grads,
    "pytensor": pytensor_verify_grad,
    "scipy": scipy_check_grad,
    "numdifftools": numdifftools_gradient,
}


def checked(checker: str, model: Any) -> dict[str, Any]:
    """One check with its seconds, values and memory."""
    model.calls = model.reverse_passes = 0
    memory_before = reset_peak()
    started = time.perf_counter()
    result = CHECKS.get(checker, gradcheck_examination)(model)
    seconds = time.perf_counter() - started
    return {"values": model.calls, "seconds": seconds, "peak_mb": memory("VmHWM") - memory_before} | result


def timed(checker: str, model: Any) -> dict[str, Any]:
    """A check; one that is over within a second is done twice more, and the median of its seconds counts."""
    _reference.clear()
    result = checked(checker, model)
    if result["seconds"] < 1:
        again = []
        for _ in range(2):
            _reference.clear()
            again.append(checked(checker, model)["seconds"])
        result["seconds"] = statistics.median([result["seconds"], *again])
    return result


def reset_peak() -> float:
    """Start the kernel's record of peak memory anew; returns the MB resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


# --- what is measured -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def built(checker: str, settings: Settings) -> Any:
    """The model, warm: framework start-up and compilation are no checker's fault. Whoever plants an error takes it out again."""
    model = MODELS[FRAMEWORK[checker]](settings)
    if FRAMEWORK[checker] != "pytensor":  # verify_grad compiles by itself
        arrays = list(model.parameters.values())
        model.value(*arrays)
        model.gradient(*arrays)
    return model


def entry_at_or_above_median(settings: Settings, seed: int, of: int) -> tuple[int, ...]:
    """An entry of W_h whose gradient is no smaller than the median one; the same for every checker."""
    model = NumpyModel(settings)
    gradient = model.gradient(*model.parameters.values())[NAMES.index(FAULTED)]
    size = np.abs(gradient).reshape(-1)
    candidates = np.flatnonzero(size >= np.median(size))
    index = candidates[int(candidates.size * (seed + 0.5) / of)]
    return tuple(int(k) for k in np.unravel_index(index, gradient.shape))


def planted(model: Any, index: tuple[int, ...] | None, factor: float) -> Any:
    multiplier = np.ones_like(model.parameters[FAULTED])
    multiplier[slice(None) if index is None else index] = factor
    return multiplier


def with_error(
    checker: str, settings: Settings, index: tuple[int, ...] | None, factor: float, check: Any = checked
) -> dict[str, Any]:
    """A check of the model with an error. named: whether the very entry is; a refusal counts only if it includes W_h."""
    model = built(checker, settings)
    model.multiplier = planted(model, index, factor)
    result = check(checker, model)
    model.multiplier = None
    where, by = result.get("where", ""), result.get("by")
    if result["verdict"] == "wrong" and FAULTED not in (where or FAULTED):
        result["verdict"] = "elsewhere"
    elif result["verdict"] == "refused" and by[FAULTED] == "pass":
        result["verdict"] = "pass"
    return {
        "index": index,
        "named": index is not None and where == FAULTED and result.get("entry") == list(index),
    } | result


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def cost(checker: str, size: int) -> None:
    """A passing and a failing check of one size."""
    checked(checker, built(checker, Settings(size=60)))  # its own imports
    settings = Settings(size=size)
    say(kind="ready")
    say(kind="passing", **timed(checker, built(checker, settings)))
    say(kind="failing", **with_error(checker, settings, entry_at_or_above_median(settings, 0, 1), 1.01, timed))


def planned_errors(
    checker: str, seed: int, seeds: int
) -> Iterator[tuple[str, Settings, tuple[int, ...] | None, float]]:
    """(name, settings, entry or None for the whole of W_h, factor) of one seed."""
    default = Settings(seed=seed)
    index = entry_at_or_above_median(default, seed, seeds)
    yield "entry x1.01", default, index, 1.01
    yield "entry x1.001", default, index, 1.001
    yield "matrix x1.001", default, None, 1.001
    yield "zeroed at 1e-5", replace(default, scale=1e-5), None, 0.0
    for name, changes in FLOAT32.items() if checker in FLOAT32_CHECKERS else ():
        of = min(seeds, FEWER_SEEDS) if changes else seeds
        if seed < of:
            settings = replace(default, dtype="float32", **changes)
            yield f"float32 {name}", settings, entry_at_or_above_median(settings, seed, of), 1.01


def errors(checker: str, seeds: int) -> None:
    """Planted errors, one model and another entry per seed."""
    say(kind="ready")
    for seed in range(seeds):
        for name, settings, index, factor in planned_errors(checker, seed, seeds):
            say(kind="error", name=name, seed=seed, **with_error(checker, settings, index, factor))


def correct(checker: str, seeds: int) -> None:
    """Correct models, on none of which a checker may find anything."""
    say(kind="ready")
    for seed in range(100, 100 + seeds):
        for name, changes in CONFIGURATIONS.items():
            if changes.get("dtype") == "float32" and checker in ("scipy", "numdifftools"):
                continue
            result = checked(checker, built(checker, Settings(seed=seed, **changes)))
            say(kind="correct", name=name, seed=seed, **result)


def main() -> None:
    checker, job = sys.argv[1], json.loads(sys.argv[2])
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    if checker.startswith("gradcheck"):
        reachable_gradcheck()
    {"cost": cost, "errors": errors, "correct": correct}[job.pop("stage")](checker, **job)


if __name__ == "__main__":
    main()
