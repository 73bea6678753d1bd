"""What a shell offers to complete: names of backends, codes, cases. Asked at every <Tab>: quick, and silent on any error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

MOST_FILES = 200  # case files whose names are read

Words = Iterable[tuple[str, str]]  # (word, what it is)
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(words: Callable[[click.Context], Words]) -> Completer:
    """Of the words, those that begin with what is typed. A broken configuration or case is told by the command, not here."""

    @wraps(words)
    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(word, help=what) for word, what in words(context) if word.startswith(typed)]
        except Exception:
            return []

    return complete


def catalog(context: click.Context) -> Any:
    from gradcheck.catalog import load_backends
    from gradcheck.configuration import configuration

    return load_backends(configuration().backend_folders(context.params.get("folders") or ()))


@completer
def rollouts(context: click.Context) -> Words:
    """jax-scan, ..."""
    return [(name, f"{backend.framework}, {rollout}") for name, (backend, rollout) in catalog(context).items()]


@completer
def frameworks(context: click.Context) -> Words:
    """jax, ... as `doctor` takes them."""
    return {backend.name: backend.framework for backend, _ in catalog(context).values()}.items()


@completer
def interpreters(context: click.Context) -> Words:
    """jax=, ... as --python takes them."""
    return {f"{backend.name}=": backend.framework for backend, _ in catalog(context).values()}.items()


@completer
def codes(context: click.Context) -> Words:
    """GC101, ..."""
    from gradcheck.diagnosis.codes import CODES

    return [(entry.code, entry.title) for entry in CODES.values()]


@completer
def cases(context: click.Context) -> Words:
    """The names of the cases that would run."""
    from gradcheck.case_file import collect
    from gradcheck.case_source import read, shown
    from gradcheck.configuration import configuration

    files = collect(configuration().case_paths(context.params.get("paths") or ()))[:MOST_FILES]
    named = [((read(file).data or {}).get("name"), str(shown(file))) for file in files]
    return [(name, file) for name, file in named if isinstance(name, str)]


@completer
def templates(context: click.Context) -> Words:
    """The shipped cases that `init` starts from."""
    from gradcheck.starter import templates as shipped

    return [(name, "") for name in shipped()]
