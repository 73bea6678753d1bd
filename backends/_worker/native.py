"""Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, nothing else.

A native case as an adapter sees it: a model in the framework's own words, built by the user's `build()`, whose parameters stay
here. Framework-free: an adapter's own module turns what `build` returned into a model and declares what it found.
"""

import fnmatch
import hashlib

import numpy as np

from . import directions
from .problem import StepError, load_step, quoted

FLOATS = ("float32", "float64")


class NativeProblem:
    """One native case in one rollout: what a Problem is to a portable case.

    arrays: the chosen parameters by their owners' names, at their own values. objectives: dicts name, wrt (floats alone; asked:
    with the integers). dtype: the framework's default float while `build` runs, then what the model computes in. widen: whether
    float32 parameters are to be taken as float64, as a reference. draws: whether the model's loop draws from a state that its
    scan does not keep; shared_draws: whether it looks as if all its steps drew the same. coarsest: the
    lowest float type that anything in it is computed in, where that is known. told: options that it sets itself.
    built: the model itself, where it lives in this very process (`gradcheck.check`): there is no `build` then, and no step_file.
    """

    def __init__(self, description, rollout):
        self.name = description["name"]
        self.seed = description["seed"]
        self.dtype = description["dtype"]
        self.options = description["options"]
        self.wanted = description["wrt"]
        self.widen = description["widen"]
        self.open_stops = description["open_stops"]
        self.step_file = description["step_file"]
        self.step_source = description.get("step_source")
        self.function = description["function"]
        self.built = description.get("built")
        self.rollout = rollout
        self.steps = 1
        self.arrays, self.objectives, self.asked, self.told = {}, [], {}, {}
        self.draws = self.shared_draws = False
        self.coarsest = ""
        self.one_rollout = ""  # why there is nothing to run in this rollout

    def build(self, forms):
        """Run the user's `build` and check its keys. forms: dicts of key -> required, one for each form that it may take.

        Returns the built dict; its form is the first whose leading key it has.
        """
        built = self.built
        if built is None:
            built = load_step(self.step_file, self.function, self.step_source)()
        if not isinstance(built, dict):
            raise StepError(f"{self.function}() returned {type(built).__name__}, not a dict")
        form = next((keys for keys in forms if next(iter(keys)) in built), None)
        if form is None:
            leading = " or ".join(repr(next(iter(keys))) for keys in forms)
            raise StepError(f"{self.function}() returned a dict without {leading}; it has {quoted(built) or 'no keys'}")
        missing = [key for key, required in form.items() if required and key not in built]
        unknown = [key for key in built if key not in form]
        if missing:
            raise StepError(f"the dict of {self.function}() lacks {quoted(missing)}; it has {quoted(built)}")
        if unknown:
            raise StepError(
                f"the dict of {self.function}() has the unknown key {quoted(unknown)}; known: {', '.join(form)}"
            )
        return built

    def declare(self, arrays, wrt_of):
        """Choose among the model's parameters. arrays: name -> array of all; wrt_of: objective -> names it may be asked about."""
        chosen = selected(self.wanted, arrays)
        self.arrays = {name: np.asarray(arrays[name]) for name in arrays if name in chosen}
        for name, array in self.arrays.items():
            if array.dtype.kind not in "biu" and str(array.dtype) not in FLOATS:
                raise StepError(
                    f"parameter {name!r} is {array.dtype}: only float32 and float64 are checked; choose others by `wrt`"
                )
        asked = {name: [n for n in self.arrays if n in wrt] for name, wrt in wrt_of.items()}
        self.asked = {name: wrt for name, wrt in asked.items() if wrt}
        if not self.asked:
            raise StepError("the model has no parameter to differentiate by")
        floats = self.differentiable
        self.objectives = [{"name": o, "wrt": [n for n in wrt if n in floats]} for o, wrt in self.asked.items()]

    @property
    def wrt(self):
        """Every parameter that some objective is differentiated by."""
        asked = {name for objective in self.objectives for name in objective["wrt"]}
        return [name for name in self.differentiable if name in asked]

    @property
    def differentiable(self):
        return [name for name, array in self.arrays.items() if array.dtype.kind == "f"]

    def settle(self, values):
        """Take the model's precision from its objectives' values and its parameters: the lowest of them."""
        for objective, value in zip(self.objectives, values):
            check_scalar(objective["name"], np.shape(value), value.dtype)
        found = [str(value.dtype) for value in values] + [str(self.arrays[n].dtype) for n in self.wrt]
        self.dtype = "float32" if "float32" in found else "float64"

    def facts(self):
        """What the core learns of the model: names, shapes, dtypes and scales, never the entries."""
        return {
            "inputs": [
                {"name": n, "shape": list(a.shape), "dtype": str(a.dtype), "rms": rms(a)}
                for n, a in self.arrays.items()
            ],
            "objectives": [{"name": name, "wrt": wrt} for name, wrt in self.asked.items()],
            "steps": self.steps,
            "draws": self.draws,
            "shared_draws": self.shared_draws,
            "coarsest": self.coarsest or self.dtype,
            "options": self.told,
            "one_rollout": self.one_rollout,
        }


def check_scalar(name, shape, dtype):
    """An objective is one number of a float dtype that is checked."""
    if tuple(shape):
        raise StepError(f"objective {name!r} has shape {tuple(shape)}: it has to be a scalar")
    if str(dtype) not in FLOATS:
        raise StepError(f"objective {name!r} is {dtype}: it has to be float32 or float64")


def step_count(rows, built):
    """The number of steps of a loop. rows: the leading axes of its inputs; `length` of the built dict, if it is there."""
    sizes = set(rows) | ({built["length"]} if "length" in built else set())
    if len(sizes) != 1:
        said = (
            f"the inputs' leading axes and `length` say {sorted(sizes)}" if sizes else "neither `inputs` nor `length`"
        )
        raise StepError(f"the number of steps is not known: {said}")
    return int(sizes.pop())


def fixed_cotangent(seed, name, shape):
    """What an output without a loss is multiplied with: a fixed random direction of its shape, float64."""
    digest = hashlib.blake2b(f"cotangent {seed} {name}".encode(), digest_size=16).digest()
    return directions.expand(int.from_bytes(digest, "big"), 0, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def unique(named):
    """{name: value} of (name, value) pairs; two of one name cannot be told apart."""
    found = {}
    for name, value in named:
        if name in found:
            raise StepError(f"two parameters are called {name!r}: give one another name")
        found[name] = value
    return found


def selected(patterns, arrays):
    """The names that are asked for: by name, or by globs, in which only * and ? are special and which match floats alone."""
    if not patterns:
        return {name for name, array in arrays.items() if np.asarray(array).dtype.kind == "f"}
    chosen = set()
    for pattern in patterns:
        glob = pattern.replace("[", "[[]")
        found = {n for n, a in arrays.items() if fnmatch.fnmatchcase(n, glob) and np.asarray(a).dtype.kind == "f"}
        found |= {pattern} & set(arrays)
        if not found:
            raise StepError(f"wrt: no parameter matches {pattern!r}; the model has {quoted(arrays)}")
        chosen |= found
    return chosen


def rms(array):
    """Root mean square, 0 where there is none."""
    if not array.size or array.dtype.kind not in "fiu":
        return 0.0
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
