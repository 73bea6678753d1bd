"""pytest collects case files: one item for each case and backend, whose failure is the diagnosis.

Which files are cases is said in the ini option `gradcheck_cases`, or on the command line by naming the file. pytest loads this in
every run of an environment that gradcheck is installed in, so it imports nothing heavy before there is a case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gradcheck.errors import GradcheckError, GradientError

if TYPE_CHECKING:
    from gradcheck.catalog import Backend
    from gradcheck.crew import Crew
    from gradcheck.model import Case, CaseReport, Report
    from gradcheck.pipeline import Plan, Settings

SUFFIXES = (".yaml", ".yml")
NOTE = "gradcheck"  # among an item's user properties: what the end of the run says about it


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcheck", "gradient checks")
    group.addoption(
        "--gradcheck-strict", action="store_true", help="Fail what cannot be judged, and backends that cannot be had."
    )
    group.addoption("--gradcheck-offline", action="store_true", help="Do not use the network to build environments.")
    group.addoption(
        "--gradcheck-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="Only this backend (repeatable); it fails where it cannot be had.",
    )
    parser.addini(
        "gradcheck_cases",
        "Files that are gradcheck cases: folders, or globs as in models/**/*.yaml, from the ini file's folder.",
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "xdist_group(name): run on the same worker of pytest-xdist, with --dist loadgroup"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> CaseFile | None:
    if file_path.suffix in SUFFIXES and (
        is_configured(file_path, parent.config) or (parent.session.isinitpath(file_path) and looks_like_case(file_path))
    ):
        found: CaseFile = CaseFile.from_parent(parent, path=file_path)
        return found
    return None


NAMED = pytest.StashKey[frozenset[Path]]()


def is_configured(path: Path, config: pytest.Config) -> bool:
    """Whether the ini option names this file, a folder that it is in, or a glob that it matches."""
    if NAMED not in config.stash:
        base = config.inipath.parent if config.inipath else config.rootpath
        globs = (str(base / entry) for entry in config.getini("gradcheck_cases"))
        config.stash[NAMED] = frozenset(Path(found) for pattern in globs for found in glob(pattern, recursive=True))
    return not config.stash[NAMED].isdisjoint((path, *path.parents))


def looks_like_case(path: Path) -> bool:
    """Whether a file that stands on the command line is a case: it has the keys `name` and `step` at its top."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return all(re.search(rf"^['\"]?{key}['\"]?\s*:", text, re.MULTILINE) for key in ("name", "step"))


class CaseFile(pytest.File):
    """One case file: an item for each backend that it runs on."""

    def collect(self) -> Iterator[CaseItem]:
        bench = bench_of(self.config)
        case, plan = bench.planned(self.path)
        for backend in plan.backends:
            group = bench.catalog[backend][0].name
            # xdist's loadgroup reads the group off the node id, where it cannot always write it (3.8 on pytest 9.2)
            name = f"{backend}@{group}" if self.config.getoption("loadgroup", False) else backend
            item: CaseItem = CaseItem.from_parent(self, name=name, plan=plan, backend=backend, group=group)
            item.extra_keyword_matches.add(case.name)
            yield item

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return words(excinfo.value, self.config) or super().repr_failure(excinfo)


class CaseItem(pytest.Item):
    """One case on one backend. Backends of one framework share an xdist group, and so a process of it."""

    def __init__(self, *, plan: Plan, backend: str, group: str, **more: Any) -> None:
        super().__init__(**more)
        self.plan, self.backend = plan, backend
        self.add_marker(pytest.mark.xdist_group(group))

    def runtest(self) -> None:
        from gradcheck.pipeline import excused
        from gradcheck.reports.text import failures

        bench = bench_of(self.config)
        report = bench.report(self.plan, self.backend)
        if not bench.settings.strict and all(excused(self.plan, check) for check in report.checks):
            if not report.checks:
                pytest.skip(f"the model has no loop for {self.backend}: its other rollout is checked")
            missing = f"{self.backend} did not run: {report.checks[0].reason}"
            self.note(missing)
            pytest.skip(missing)
        if not report.ok:
            raise GradientError(failures(report), report)
        unsure = sum(check.verdict == "inconclusive" and not check.expected for check in report.checks)
        if unsure:
            self.note(f"{unsure} of {len(report.checks)} checks are inconclusive (--gradcheck-strict fails them)")

    def note(self, text: str) -> None:
        """Have the end of the run say it, however the item ends."""
        self.user_properties.append((NOTE, f"{self.parent.nodeid if self.parent else ''}::{self.backend}: {text}"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return words(excinfo.value, self.config) or super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.plan.case.name} on {self.backend}"


def words(error: BaseException, config: pytest.Config) -> str:
    """What a user reads of an error, never a traceback; "" where pytest says it: an interrupt, --full-trace."""
    if isinstance(error, GradientError):
        return str(error)
    if isinstance(error, GradcheckError):
        return "\n".join(filter(None, (error.message, error.context, error.hint)))
    if isinstance(error, Exception) and not config.getoption("fulltrace"):
        return f"internal error in gradcheck (--full-trace shows where): {type(error).__name__}: {error}"
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for kind in ("passed", "skipped", "failed") for r in terminalreporter.stats.get(kind, [])]
    notes = [text for r in reports for name, text in getattr(r, "user_properties", ()) if name == NOTE]
    if notes:
        terminalreporter.section("gradcheck", sep="-")
        for text in dict.fromkeys(notes):
            terminalreporter.write_line(text)


# --- the bench: what all items of a session share ---------------------------------------------------------------------

BENCH = pytest.StashKey["Bench"]()


def bench_of(config: pytest.Config) -> Bench:
    """The session's bench, set up where the first case file is collected."""
    if BENCH not in config.stash:
        config.stash[BENCH] = Bench.of(config)
    return config.stash[BENCH]


def pytest_unconfigure(config: pytest.Config) -> None:
    if BENCH in config.stash:
        config.stash[BENCH].close()


@dataclass
class Bench:
    """The crew of a session: each framework's process starts once. Reports are kept: the rollouts of a framework share one."""

    settings: Settings
    catalog: Mapping[str, tuple[Backend, str]]
    crew: Crew
    reports: dict[tuple[Path, str], CaseReport]

    @classmethod
    def of(cls, config: pytest.Config) -> Bench:
        from gradcheck.catalog import load_backends
        from gradcheck.configuration import settings_from
        from gradcheck.crew import Crew
        from gradcheck.pipeline import check_names

        options = {
            "backends": tuple(config.getoption("gradcheck_backend")),
            "strict": config.getoption("gradcheck_strict"),
            "offline": config.getoption("gradcheck_offline"),
        }
        settings, _ = settings_from(options, start=config.rootpath)
        catalog = load_backends(settings.extra_backends)
        check_names(settings, catalog)
        crew = Crew(
            catalog,
            given=settings.python,
            offline=settings.offline,
            limits=settings.limits,
            jobs=None,
            progress=lambda line: None,
        )
        return cls(settings, catalog, crew, {})

    def planned(self, path: Path) -> tuple[Case, Plan]:
        """The case in a file and where it runs. Raises CaseFileError with every problem of the file."""
        from gradcheck.case_file import load
        from gradcheck.pipeline import misfits, planned

        frameworks = {backend.name for backend, _ in self.catalog.values()}
        case = load(path, frameworks, lambda case: misfits(case, self.catalog))
        return case, planned(case, self.settings, self.catalog)

    def report(self, plan: Plan, name: str) -> Report:
        """The report about one backend of a case.

        All rollouts of its framework are examined together, once: they are compared with one another, and what is found does not
        depend on which items run.
        """
        from gradcheck.pipeline import concluded, ordered, outcome, report_of

        framework = self.catalog[name][0].name
        family = tuple(b for b in plan.backends if self.catalog[b][0].name == framework)
        key = (plan.case.path, framework)
        if key not in self.reports:
            plan = replace(plan, backends=family)
            futures = ordered(plan, self.crew, self.settings)
            results = [outcome(plan.case, b, future) for b, future in zip(family, futures, strict=True)]
            self.reports[key] = concluded(plan, results, self.crew, self.settings)
        found = only(self.reports[key], name, family, plan)
        return report_of(replace(plan, backends=(name,)), found, self.settings, "pytest", self.crew)

    def close(self) -> None:
        self.crew.__exit__(None, None, None)


def only(report: CaseReport, name: str, family: Sequence[str], plan: Plan) -> CaseReport:
    """What a report says about one backend; what is about none in particular belongs to the first.

    That an expected finding is gone is not said of those that may occur on other frameworks: they were not looked at here.
    """
    every = plan.case.backends or plan.backends
    elsewhere = {e.line for e in plan.case.expect if not set(e.backends or every) <= set(family)}
    findings = tuple(
        f
        for f in report.findings
        if (name in f.backends or (not f.backends and name == family[0]))
        and not (f.code == "GC801" and f.blame is not None and f.blame.line in elsewhere)
    )
    return replace(report, checks=tuple(c for c in report.checks if c.backend == name), findings=findings)
