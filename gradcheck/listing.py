"""`gradcheck list` and `gradcheck lint`: what there is and whether it can be read, without running a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gradcheck.catalog import Backend, load_backends
from gradcheck.configuration import configuration
from gradcheck.diagnosis.scene import relative
from gradcheck.pipeline import Settings, check_names, load_all, planned

Echo = Callable[[str], None]
NO_CASE, PROBLEMS = 5, 2


def cases(paths: tuple[Path, ...], folders: Sequence[Path], echo: Echo) -> int:
    """One line per case: path, name, what it has. Returns the exit code."""
    settings, chosen, catalog = prepared(paths, folders)
    found, problems = load_all(chosen, settings, catalog)
    for case in found:
        backends = ", ".join(planned(case, settings, catalog).backends)
        pairs = sum(len(o.wrt) for o in case.objectives)
        what = f"{case.steps} steps, {len(case.objectives)} objectives, {pairs} gradients"
        if case.native:
            what = f"a model of {case.native}"
        echo(f"{relative(case.path)}  {case.name}: {what}, on {backends}")
    for place in problems:
        echo(str(place))
    return PROBLEMS if problems else 0 if found else NO_CASE


def backends(folders: Sequence[Path], echo: Echo) -> int:
    """One line per backend: name, framework, rollout, where its interpreter comes from."""
    from gradcheck.environments import examine

    configured = configuration()
    catalog = load_backends(configured.backend_folders(folders))
    python = configured.interpreters()
    for name, (backend, rollout) in catalog.items():
        state = examine(backend, given=python.get(backend.name), deep=False)
        version = state.environment.framework_version if state.environment else ""
        ready = state.kind if state.environment else "not built yet, built on first use"
        echo(f"{name:<16} {rollout:<7} {backend.framework} {version or backend.requires[0]}  ({ready})")
    return 0


def lint(paths: tuple[Path, ...], folders: Sequence[Path], echo: Echo) -> int:
    """Every problem of every case file. Returns the exit code."""
    settings, chosen, catalog = prepared(paths, folders)
    found, problems = load_all(chosen, settings, catalog)
    for place in problems:
        echo(str(place))
    if not problems:
        echo(f"{len(found)} case file{'s' * (len(found) != 1)} without problems")
    return PROBLEMS if problems else 0 if found else NO_CASE


def prepared(
    paths: tuple[Path, ...], folders: Sequence[Path]
) -> tuple[Settings, list[Path], dict[str, tuple[Backend, str]]]:
    """What the commands that run nothing need: settings, the paths to look at, the backends."""
    configured = configuration()
    catalog = load_backends(configured.backend_folders(folders))
    settings = Settings(default_backends=tuple(configured.table.get("backends", ())), python=configured.interpreters())
    check_names(settings, catalog)
    return settings, configured.case_paths(paths), catalog
