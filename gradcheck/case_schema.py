"""The shape of a case file: pydantic models, strict and closed, that also give its JSON schema.

What needs more than one entry to be judged (names, shapes, files) is checked in case_file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from gradcheck.case_source import did_you_mean
from gradcheck.model import Init

DTYPE = Literal["float32", "float64"]
INPUT_DTYPE = Literal["float", "float32", "float64", "int32", "int64", "bool"]
INIT_WORDS = ("zeros", "ones", "normal", "uniform", "glorot")
INIT_KEYS = ("normal", "uniform", "integers", "value", "file")
CODE = r"^GC\d(\d\d|xx)$"


def _dim(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"a dimension is a name from `dims` or a whole number, not {value!r}")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"a dimension is at least 1, not {value}")
    return value


def _at(value: Any) -> str | int:
    if isinstance(value, str) and value not in ("all", "last"):
        raise ValueError(f"unknown `at` {value!r}{did_you_mean(value, ('all', 'last'))} or a step number")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"`at` is all, last or a step number, not {value!r}")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"`at` counts steps from 0, {value} is negative: write `last` for the last step")
    return value


def _real(value: Any) -> float | None:
    """The value as a finite float, or None if it is no such thing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _limits(value: Any, kind: str) -> tuple[Any, Any]:
    """[a, b] with a < b. Raises ValueError."""
    whole = kind == "integers"
    if not (isinstance(value, list) and len(value) == 2 and all(_real(limit) is not None for limit in value)):
        raise ValueError(f"{kind!r} takes two numbers: {{{kind}: {'[0, 5]' if whole else '[-1.0, 1.0]'}}}")
    low, high = value
    if whole and not (isinstance(low, int) and isinstance(high, int)):
        raise ValueError("'integers' takes whole numbers")
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"{kind!r} takes [low, high) with low < high, not {value}")
    return low, high


def _bounds(value: Any) -> tuple[float, float]:
    """[low, high] as numbers, infinite where null. Raises ValueError."""
    if not (isinstance(value, list) and len(value) == 2 and all(v is None or _real(v) is not None for v in value)):
        raise ValueError("'bounds' takes two numbers or null: [0.0, null]")
    low = -math.inf if value[0] is None else float(value[0])
    high = math.inf if value[1] is None else float(value[1])
    if not low < high:
        raise ValueError(f"'bounds' takes [low, high] with low < high, not {value}")
    return low, high


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a number or nested lists of numbers. Raises ValueError if it is ragged or holds anything else."""
    if not isinstance(value, list):
        if not isinstance(value, bool | int | float):
            raise ValueError(f"'value' holds numbers, not {value!r}")
        return ()
    shapes = {shape_of(item) for item in value}
    if len(shapes) != 1:
        raise ValueError("'value' has rows of different lengths" if shapes else "'value' must not be empty")
    return (len(value), *shapes.pop())


def leaves(value: Any) -> Iterator[bool | int | float]:
    """Every number in nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def _init(given: Any) -> Init:
    """An `init:` as written -> Init. Raises ValueError."""
    if isinstance(given, str):
        if given not in INIT_WORDS:
            hint = " or {file: ..., key: ...}" if given.endswith(".npz") else ""
            raise ValueError(f"unknown init {given!r}{did_you_mean(given, INIT_WORDS)}{hint}")
        return Init(given, a=1.0) if given == "normal" else Init(given)
    if not isinstance(given, dict):
        if isinstance(given, bool | int | float | list):
            raise ValueError("a literal is written {value: ...}")
        raise ValueError(f"'init' is a word ({', '.join(INIT_WORDS)}) or a mapping such as {{value: 1.0}}")
    if "file" in given:
        return _file_init(given)
    if len(given) != 1:
        raise ValueError(f"'init' takes one of {', '.join(INIT_KEYS)}, this has {len(given)} keys")
    ((kind, argument),) = given.items()
    match kind:
        case "normal":
            scale = _real(argument)
            if scale is None or scale < 0:
                raise ValueError("'normal' takes a scale, a number that is not negative: {normal: 0.1}")
            return Init("normal", a=scale)
        case "uniform" | "integers":
            low, high = _limits(argument, kind)
            return Init(kind, a=low, b=high)  # integers stay whole numbers: a float holds only 53 bits
        case "value":
            shape_of(argument)
            return Init("value", value=argument)
    raise ValueError(f"unknown init {kind!r}{did_you_mean(kind, INIT_KEYS)}")


def _file_init(given: dict[str, Any]) -> Init:
    for key in given:
        if key not in ("file", "key"):
            raise ValueError(f"unknown key {key!r} beside 'file'{did_you_mean(key, ('key',))}")
    if not all(isinstance(given.get(key), str) and given[key] for key in ("file", "key")):
        raise ValueError("an array from a file is written {file: weights.npz, key: name}")
    return Init("file", file=Path(given["file"]), key=given["key"])


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("'name' must be one line of visible text")
    return value


def _code(value: str) -> str:
    if not re.match(CODE, value):
        raise ValueError(f"{value!r} is not a code: write one such as GC101, or a family such as GC1xx")
    return value


def _reason(value: str) -> str:
    if not value.strip():
        raise ValueError("'reason' must say why this is accepted")
    return value


def _equation(value: Any) -> str:
    if value is None:
        raise ValueError("the equation is empty: inside {...}, one that has a comma is put in quotes")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("an equation is an expression such as tanh(x @ W + b)")
    if not str(value).strip():
        raise ValueError("the equation is empty")
    return str(value)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _one_or_many(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


TEXT = {"type": "string", "minLength": 1}
EQUATION = {"type": ["string", "number"], "minLength": 1}
NUMBER_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


def _one_key(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}


INIT_SCHEMA = {
    "description": "a word, or one of {normal: scale}, {uniform: [a, b]}, {integers: [low, high]} (high excluded), "
    "{value: number or nested lists}, {file: weights.npz, key: name}",
    "anyOf": [
        {"enum": list(INIT_WORDS)},
        _one_key("normal", {"type": "number", "minimum": 0}),
        _one_key("uniform", NUMBER_PAIR),
        _one_key("integers", NUMBER_PAIR | {"items": {"type": "integer"}}),
        _one_key("value", {"type": ["number", "boolean", "array"]}),
        _one_key("file", TEXT) | {"properties": {"file": TEXT, "key": TEXT}, "required": ["file", "key"]},
    ],
}

Text = Annotated[str, Field(min_length=1)]
Dim = Annotated[
    int | str, PlainValidator(_dim), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]})
]
AnInit = Annotated[Init, PlainValidator(_init), WithJsonSchema(INIT_SCHEMA)]
Bounds = Annotated[
    tuple[float, float],
    PlainValidator(_bounds),
    WithJsonSchema({"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2}),
]
At = Annotated[
    str | int,
    PlainValidator(_at),
    WithJsonSchema({"anyOf": [{"enum": ["all", "last"]}, {"type": "integer", "minimum": 0}]}),
]
Texts = Annotated[list[Text], Field(min_length=1), BeforeValidator(_listed), _one_or_many(TEXT)]
Codes = Annotated[
    list[Annotated[str, AfterValidator(_code)]],
    Field(min_length=1),
    BeforeValidator(_listed),
    _one_or_many({"type": "string", "pattern": CODE}),
]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Entry(Closed):
    """An input of the step."""

    shape: list[Dim] = Field(description="dimensions, names from `dims` or numbers, without time; [] is a scalar")


class FilledEntry(Entry):
    """An input with given or generated values."""

    init: AnInit = Field(description="how it is filled; a sequence's `value` and `file` include the time axis")
    dtype: INPUT_DTYPE | None = Field(None, description="default: the case's dtype")


class MovedEntry(FilledEntry):
    """An input that is moved to take differences."""

    bounds: Bounds | None = Field(
        None,
        description="[low, high], either may be null: the values lie inside, and no step of a difference leaves it "
        "(one-sided differences where entries lie on or near a bound)",
    )


class NoiseEntry(Entry):
    """Random draws."""

    draw: Literal["normal", "uniform"] = Field("normal", description="mean 0 and scale 1, or [0, 1)")
    placement: Literal["sequence", "non_sequence", "in_step"] = Field(
        "sequence", description="fresh draws passed in per step, one draw for all steps, or drawn inside the loop body"
    )


class ObjectiveEntry(Closed):
    """A named scalar and what to differentiate it with respect to."""

    of: Text = Field(description="a carry (its new values) or an output of the step")
    reduce: Literal["sum", "mean", "dot"] = Field("sum", description="dot: with a fixed random cotangent")
    at: At = Field("all", description="all steps, the last, or a step number counted from 0")
    wrt: list[Text] = Field(
        min_length=1, description="parameters (globs such as W_* allowed), sequences, initial carries, passed noise"
    )


class ToleranceEntry(Closed):
    """What is allowed on top of the reference's own error bound."""

    rtol: NotNegative | None = Field(default=None, description="relative to the norm of gradient times direction")
    atol: NotNegative = Field(default=0.0, description="absolute")


class ExpectEntry(Closed):
    """A known and accepted deviation; a field that is left out matches anything."""

    backend: Texts | None = None
    objective: Texts | None = None
    parameters: Texts | None = None
    parameter: Texts | None = Field(None, description="the same as `parameters`")
    code: Codes | None = Field(None, description="GC101, or a family such as GC2xx")
    order: Literal[1, 2] | None = Field(
        None, description="of the gradient (1) or the Hessian-vector product (2, --order 2)"
    )
    reason: Annotated[str, AfterValidator(_reason)] = Field(description="why this is accepted", min_length=1)


class CaseFile(Closed):
    """A gradcheck case: a model step, its data, what to differentiate and what to expect."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="the case's name in reports")
    step: Text = Field(description="FILE.py:FUNCTION, the file beside the case")
    steps: int = Field(ge=1, description="how many time steps")
    seed: int = Field(0, ge=0, description="all random inputs follow from it")
    dtype: DTYPE = Field("float64", description="of every input that names none")
    dims: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="names for dimensions")
    sequences: dict[str, MovedEntry] = Field({}, description="inputs with one value per step")
    carry: dict[str, MovedEntry] = Field({}, description="what a step hands to the next; `init` is the initial value")
    noise: dict[str, NoiseEntry] = Field({}, description="random draws")
    parameters: dict[str, MovedEntry] = Field({}, description="what is differentiated, the same at every step")
    constants: dict[str, FilledEntry] = Field({}, description="inputs that are neither differentiated nor per step")
    objectives: dict[str, ObjectiveEntry] = Field(description="the scalars whose gradients are checked", min_length=1)
    backends: list[Text] | None = Field(None, min_length=1, description="default: the configured backends")
    tolerance: ToleranceEntry = Field(ToleranceEntry(), description="default: by dtype")
    options: dict[str, dict[str, Any]] = Field({}, description="framework -> option -> value")
    expect: list[ExpectEntry] = Field([], description="known and accepted findings; one that no longer occurs fails")


class EquationsStep(Closed):
    """A step without Python: equations, carried out in order."""

    equations: dict[str, Annotated[str, PlainValidator(_equation), WithJsonSchema(EQUATION)]] = Field(
        description="name -> expression of inputs, equations above and functions of xp, without `xp.`; the name of a carry is "
        "its new value, which equations below see; an equation that is no carry is an output if an objective names it",
        min_length=1,
    )
    outputs: list[Text] = Field(
        [], description="further equations that the step returns, although no objective names them"
    )


class EquationsFile(CaseFile):
    """A case whose step is written in it, as equations: safe to run, whoever wrote it."""

    step: EquationsStep = Field(description="the step's equations")  # type: ignore[assignment]  # instead of a file's name


class NativeStep(Closed):
    """A model that exists in a framework's own words."""

    framework: Text = Field(description="theano, jax: whose words `build` answers in")
    build: Text = Field(description="FILE.py:FUNCTION, the file beside the case; takes nothing, returns a dict")


class NativeFile(Closed):
    """A native case: a framework's own model, what to differentiate and what to expect. Its data are the model's own."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="the case's name in reports")
    step: NativeStep = Field(description="the framework and the function that builds the model")
    seed: int = Field(0, ge=0, description="of the probe directions")
    dtype: DTYPE = Field("float64", description="the framework's default float while the model is built")
    wrt: Texts | None = Field(None, description="parameters by their owners' names, globs allowed; default: all")
    backends: list[Text] | None = Field(None, min_length=1, description="default: every rollout of the framework")
    tolerance: ToleranceEntry = Field(ToleranceEntry(), description="default: by dtype")
    options: dict[str, dict[str, Any]] = Field({}, description="framework -> option -> value")
    expect: list[ExpectEntry] = Field([], description="known and accepted findings; one that no longer occurs fails")


Schema = type[CaseFile] | type[EquationsFile] | type[NativeFile]


def schema_of(data: Any) -> Schema:
    """Which of the three forms a file has: `step` is a text, a mapping with `equations` (or a slip of it), or another one."""
    step = data.get("step") if isinstance(data, dict) else None
    if not isinstance(step, dict):
        return CaseFile
    named = [get_close_matches(key, ("equations", "framework", "build"), n=1) for key in step]
    return EquationsFile if ["equations"] in named else NativeFile


def keys_at(parent: tuple[str | int, ...], schema: Schema = CaseFile) -> tuple[str, ...]:
    """The keys that the mapping at `parent` may have: () is the file, ("parameters", "W") an entry."""
    return tuple((_entry_model(str(parent[0]), schema) if parent else schema).model_fields)


def has_default(section: str, key: str | int, schema: Schema = CaseFile) -> bool:
    """Whether the entries of a section may leave out this key."""
    if section not in schema.model_fields:
        return False
    found = getattr(_entry_model(section, schema), "model_fields", {}).get(key)
    return found is not None and not found.is_required()


def _entry_model(section: str, schema: Schema) -> Any:
    annotation = schema.model_fields[section].annotation
    return (get_args(annotation) or (annotation,))[-1]  # the X of dict[str, X], list[X] or X
