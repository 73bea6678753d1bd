"""Looks at a step file without running it: is the function there, and does it take what the case passes by name?"""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gradcheck.case_source import did_you_mean, shown
from gradcheck.model import Place
from gradcheck.source import parse

COMPOUND = (ast.If, ast.Try, ast.With, ast.For, ast.While)


@dataclass(frozen=True)
class Signature:
    """The parameters of a step function, of which `line` is the place."""

    line: int
    by_position_only: tuple[str, ...]
    by_name: tuple[str, ...]
    required: tuple[str, ...]  # without a default
    first: str | None  # the first that takes a position: `xp` goes there
    any_position: bool  # *args
    any_name: bool  # **kwargs


def step_problems(file: Path, function: str, inputs: Collection[str]) -> tuple[list[str], list[Place]]:
    """What stands in the way of calling `function(xp, **inputs)`.

    Returns the messages that belong to the case's `step:` and the places that are in the step file itself.
    """
    found, messages, places = _found(file, function)
    signature = _signature(found) if found else None
    where = f"step {function!r} ({shown(file)}:{signature.line})" if signature else ""
    return messages + ([f"{where} {reason}" for reason in _misfits(signature, inputs)] if signature else []), places


def build_problems(file: Path, function: str) -> tuple[list[str], list[Place]]:
    """What stands in the way of calling `function()`, as step_problems."""
    found, messages, places = _found(file, function)
    signature = _signature(found) if found else None
    if signature and signature.required:
        where = f"build {function!r} ({shown(file)}:{signature.line})"
        messages = [f"{where} requires {', '.join(map(repr, signature.required))}, but is called without arguments"]
    return messages, places


def _found(file: Path, function: str) -> tuple[ast.AST | None, list[str], list[Place]]:
    """What a name is bound to in a file (None if only running it could tell), or the problems, as step_problems has them."""
    try:
        # bytes, so that the file's own encoding declaration counts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. an invalid escape: the user sees it when the step runs
            tree = parse(file.read_bytes())
    except SyntaxError as invalid:
        return (
            None,
            [],
            [Place(str(shown(file)), invalid.lineno or 1, invalid.offset or 1, f"syntax error: {invalid.msg}")],
        )
    except (FileNotFoundError, NotADirectoryError):
        beside = sorted(p.name for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        return None, [f"no step file {file.name!r} in {shown(file.parent)}{did_you_mean(file.name, beside)}"], []
    except IsADirectoryError:
        return None, [f"step file {file.name!r} is a folder"], []
    except (OSError, ValueError, RecursionError, MemoryError) as problem:
        return None, [f"step file {file.name!r} cannot be read: {problem}"], []

    bound = dict(_bindings(tree.body))
    if function not in bound:
        if "*" in bound:  # from somewhere import *: it may be in there
            return None, [], []
        functions = [name for name, value in bound.items() if isinstance(value, ast.FunctionDef)]
        return None, [f"no function {function!r} in {shown(file)}{did_you_mean(function, functions)}"], []
    return bound[function], [], []


def _misfits(signature: Signature, inputs: Collection[str]) -> Iterator[str]:
    strangers = [name for name in signature.required if name != "xp" and name not in inputs]
    if signature.first != "xp" and not (signature.first is None and signature.any_position):
        yield "does not take 'xp' as its first parameter"
    for name in inputs:
        if name in signature.by_position_only:  # **kwargs does not help: the position stays empty
            yield f"takes {name!r} by position only, but inputs are passed by name: remove the `/`"
        elif name not in signature.by_name and not signature.any_name:
            close = difflib.get_close_matches(name, [s for s in strangers if s in signature.by_name], n=1)
            hint = f", did you mean {close[0]!r}?" if close else f": add {name!r} or `**inputs`"
            yield f"does not take the input {name!r}{hint}"
    for name in strangers:
        yield f"requires {name!r}, which is no input of the case{did_you_mean(name, inputs)}"


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Names bound at module level, in order, inside if, try, with and loops too."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, statement
            case ast.Assign(targets=targets, value=value):
                for node in (node for target in targets for node in ast.walk(target)):
                    if isinstance(node, ast.Name):
                        yield node.id, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (((alias.asname or alias.name).partition(".")[0], alias) for alias in names)
            case _ if isinstance(statement, COMPOUND):
                for field in ("body", "orelse", "finalbody"):
                    yield from _bindings(getattr(statement, field, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _bindings(handler.body)


def _signature(node: ast.AST) -> Signature | None:
    """The signature, or None where reading alone cannot tell: an import, a call's result, a decorated function."""
    if not isinstance(node, ast.FunctionDef | ast.Lambda) or getattr(node, "decorator_list", []):
        return None
    arguments = node.args
    by_position = [a.arg for a in arguments.posonlyargs + arguments.args]
    by_name = [a.arg for a in arguments.args + arguments.kwonlyargs]
    keyword_required = [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None]
    return Signature(
        line=node.lineno,
        by_position_only=tuple(a.arg for a in arguments.posonlyargs),
        by_name=tuple(by_name),
        required=(*by_position[: len(by_position) - len(arguments.defaults)], *keyword_required),
        first=by_position[0] if by_position else None,
        any_position=arguments.vararg is not None,
        any_name=arguments.kwarg is not None,
    )
