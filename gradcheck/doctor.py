"""`gradcheck doctor`: the state of the interpreters that backends run in, and their repair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gradcheck.catalog import Backend, load_backends, load_only, suggest
from gradcheck.configuration import configuration
from gradcheck.environments import Examination, examine, resolve
from gradcheck.errors import BackendError, UsageError

Echo = Callable[[str], None]
BROKEN = 3


def examine_all(
    name: str | None,
    rebuild: bool,
    offline: bool,
    python: Mapping[str, Path],
    folders: Sequence[Path],
    echo: Echo,
    contract: Path | None = None,
) -> int:
    """Build or repair what is missing, then say what each backend runs in. Returns the exit code.

    contract: a folder whose backends alone are looked at, and then held against the contract.
    """
    configured = configuration()
    given = configured.interpreters(python)
    catalog = load_only(contract) if contract else load_backends(configured.backend_folders(folders))
    statuses = {0}
    for backend in chosen(name, catalog):
        status = examine_one(backend, given.get(backend.name), rebuild, offline, echo)
        if contract and status == 0:
            from gradcheck.contract.report import run_contract

            status = run_contract(backend, catalog, given, offline, echo)
        statuses.add(status)
    return 1 if 1 in statuses else max(statuses)


def examine_one(backend: Backend, given: Path | None, rebuild: bool, offline: bool, echo: Echo) -> int:
    """One backend's interpreter. Returns the exit code."""
    try:
        resolve(backend, given=given, offline=offline, rebuild=rebuild, progress=echo)
    except BackendError as error:
        echo(f"{backend.name}: {error.message}")
        for line in (*error.context.splitlines(), *(f"help: {h}" for h in error.hint.splitlines())):
            echo(f"  {line}")
        return BROKEN
    state = examine(backend, given=given, deep=True)
    show(backend, state, echo)
    return BROKEN if state.problem or state.probe not in ("", "ok") else 0


def chosen(name: str | None, catalog: Mapping[str, tuple[Backend, str]]) -> list[Backend]:
    """All backends, or the one that a user named by its own name or a rollout's."""
    groups = {backend.name: backend for backend, _ in catalog.values()}
    if name is None:
        return list(groups.values())
    if name in catalog:
        return [catalog[name][0]]
    if name not in groups:
        raise UsageError(f"unknown backend '{name}'{suggest(name, groups)}", hint="gradcheck list backends")
    return [groups[name]]


def show(backend: Backend, state: Examination, echo: Echo) -> None:
    echo(f"{backend.name}: {'broken' if state.problem else 'healthy'}  ({', '.join(backend.rollouts)})")
    if state.environment:
        versions = ", ".join(f"{n} {v}" for n, v in state.environment.versions.items())
        echo(f"  interpreter  {state.environment.python}")
        echo(f"  python       {state.environment.python_version}, {state.kind}")
        echo(f"  why          {'; '.join(state.why.splitlines())}")
        echo(f"  versions     {versions}")
    if state.problem:
        echo(f"  problem      {state.problem}")
    if state.probe:
        echo(f"  probe        {state.probe}  ({state.seconds:.1f} s)")
