"""Whose are these objects? Tells which framework a model belongs to, by what the backends' manifests say they own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np

from gradcheck.catalog import Backend, suggest
from gradcheck.errors import UsageError


def backend_of(backends: Sequence[Backend], built: Mapping[str, Any], framework: str | None) -> Backend:
    """The backend that a model belongs to. Raises UsageError if that cannot be told.

    built: the model, as a dict that holds its loss and parameters. Every framework takes NumPy's arrays, so they decide only if
    there is nothing else, and then by what the loss makes of them: it is called once. framework: the user's own word for it.
    """
    if framework is not None:
        return named(backends, framework)
    found = [owner(backends, leaf) for leaf in leaves(built, set())]
    plain = owner(backends, np.zeros(0))
    frameworks = [b for b in backends if b in found and b is not plain]
    hint = f"say it: framework={' or '.join(repr(b.name) for b in backends)}"
    if len(frameworks) > 1:
        raise UsageError(f"the model holds objects of {' and of '.join(b.framework for b in frameworks)}", hint=hint)
    if frameworks:
        return frameworks[0]
    if "loss" not in built:
        raise UsageError("cannot tell which framework the model belongs to: it holds no objects of any", hint=hint)
    value = value_of(built)
    result = owner(backends, value)
    if result is None:
        raise UsageError(
            f"cannot tell which framework the model belongs to: its loss is of type {type_name(value)}", hint=hint
        )
    return result


def named(backends: Sequence[Backend], framework: str) -> Backend:
    for backend in backends:
        if framework in (backend.name, backend.framework):
            return backend
    raise UsageError(f"unknown framework {framework!r}{suggest(framework, [b.name for b in backends])}")


def owner(backends: Sequence[Backend], value: object) -> Backend | None:
    """Whose object this is: the backend that owns a module in which its type, or a base of it, is defined."""
    modules = {str(kind.__module__).partition(".")[0] for kind in type(value).__mro__}
    return next((b for b in backends if modules & set(b.owns)), None)


def leaves(value: Any, seen: set[int]) -> Iterator[object]:
    """What a nested structure holds, keys too; bound arguments and the object of a method among them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inside: Any = None
    if isinstance(value, Mapping):
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = value
    elif isinstance(value, partial):
        inside = [value.func, *value.args, *value.keywords.values()]
    elif is_dataclass(value) and not isinstance(value, type):
        inside = [getattr(value, field.name, None) for field in fields(value)]
    elif hasattr(value, "__self__") and hasattr(value, "__func__"):
        inside = [value.__self__]
    if inside is None:
        yield value
    else:
        for item in inside:
            yield from leaves(item, seen)


def value_of(built: Mapping[str, Any]) -> object:
    """What the loss gives at the parameters as they are."""
    loss = built.get("loss")
    if isinstance(loss, Mapping) and loss:
        loss = next(iter(loss.values()))
    if not callable(loss):
        return loss
    try:
        return loss(built.get("params"), *built.get("args", ()))
    except Exception as error:
        raise UsageError(
            "the loss cannot be called as loss(params, *args)", context=f"{type(error).__name__}: {error}"
        ) from error


def type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
