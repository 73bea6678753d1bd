"""The command line: parse, call, print, exit. No logic; heavy modules are imported by the commands that need them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gradcheck import __version__, completion
from gradcheck.errors import GradcheckError, log_traceback

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED, INTERNAL, USAGE = 130, 4, 2


class Group(click.Group):
    """click's group with gradcheck's exit codes: click's own 1 for errors is gradcheck's code for findings."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
        except click.exceptions.Exit as stop:
            status = stop.exit_code
        except click.ClickException as error:
            error.show()
            status = USAGE
        except GradcheckError as error:
            show_error(error)
            status = USAGE
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted: the workers were stopped, no report was written", err=True)
            status = INTERRUPTED
        except (
            BrokenPipeError,
            SystemExit,
        ):  # click's answer to a pipe whose reader went away: nothing more can be said
            silence_stdout()
            status = 0
        except Exception:
            click.echo(f"error: internal error in gradcheck; the traceback is in {log_traceback()}", err=True)
            click.echo("help: please report it with that file", err=True)
            status = INTERNAL
        flush_and_exit(status if isinstance(status, int) else 0)


def flush_and_exit(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
    raise SystemExit(status)


def silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def show_error(error: GradcheckError) -> None:
    """One clear error: message, context, note, hint."""
    from gradcheck.case_file import CaseFileError

    if isinstance(error, CaseFileError):
        for place in error.places:
            click.echo(str(place), err=True)
        return
    code = f"[{error.code}]" if error.code else ""
    click.echo(f"error{code}: {error.message}", err=True)
    for name, text in (("", error.context), ("note: ", error.note), ("help: ", error.hint)):
        for line in text.splitlines():
            click.echo(f"  {name}{line}", err=True)


def epilog(*examples: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gradcheck")
def main() -> None:
    """Tell whether the gradients of a model step are right when the step is run over time."""


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """--python theano=/path/python -> {"theano": Path}. A rollout's name stands for its framework."""
    result = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            raise click.BadParameter(f"'{value}' is not of the form BACKEND=PATH")
        result[name.removesuffix("-scan").removesuffix("-unroll")] = Path(path).expanduser()
    return result


further_backends = click.option(
    "--backends",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Look for further backends here.",
)


@main.command(
    epilog=epilog(
        "gradcheck run cases/rnn_vae.yaml",
        "gradcheck run -b jax-scan -b unroll -k 'rnn and not float32'",
        "gradcheck run --json report.json --junit report.xml --strict",
        "gradcheck run --self-test cases/gru.yaml",
        "gradcheck run --order 2 cases/gru.yaml",
        "gradcheck run --python theano=~/envs/model/bin/python my_case.yaml",
    )
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-b",
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.rollouts,
    help="Only this backend (repeatable).",
)
@click.option(
    "-k",
    "expression",
    default="",
    metavar="EXPR",
    shell_complete=completion.cases,
    help="Only cases whose name matches: words, and, or, not.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Use this seed instead of each case's own.")
@click.option("--rtol", type=click.FloatRange(min=0), help="Relative tolerance on top of the reference's error bound.")
@click.option("--atol", type=click.FloatRange(min=0), help="Absolute tolerance on top of the reference's error bound.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Workers busy at a time (default: one per framework).")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Limit for one job of a worker (default: 300).",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Limit of each worker's resident memory.",
)
@click.option(
    "--diagnose-seconds",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Limit for finding the causes of one case's findings (default: ten times its checks, at least 10, at most 60).",
)
@click.option("-x", "--fail-fast", is_flag=True, help="Stop after the first case with an unexpected error.")
@click.option("--strict", is_flag=True, help="Exit 3 also for inconclusive checks and for missing default backends.")
@click.option(
    "--self-test", is_flag=True, help="Plant errors into the gradients that pass, and say which would be seen."
)
@click.option(
    "--order",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="2: check Hessian-vector products too, where gradients pass.",
)
@click.option("--no-expect", is_flag=True, help="Treat every finding as unexpected.")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the JSON report to FILE, or to standard output for '-'."
)
@click.option("--junit", "junit_file", metavar="FILE", type=click.Path(dir_okay=False), help="Write a JUnit report.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option(
    "--python",
    multiple=True,
    callback=pairs,
    metavar="BACKEND=PATH",
    shell_complete=completion.interpreters,
    help="Run a backend in this interpreter.",
)
@further_backends
@click.option("--offline", is_flag=True, help="Do not use the network to build environments.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours in the report.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only what fails, and the summary.")
@click.option("-v", "--verbose", count=True, help="More: detection limits, expected findings in full.")
def run(
    paths: tuple[Path, ...],
    json_file: str | None,
    junit_file: str | None,
    format_name: str,
    color: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Check the gradients of the cases in PATHS (files or folders; default: cases/).

    Exit codes: 0 as expected, 1 unexpected findings, 2 usage or case file, 3 not judged, 4 internal error, 5 no case,
    130 interrupted.
    """
    from gradcheck.configuration import settings_from
    from gradcheck.pipeline import run as run_cases

    settings, paths_chosen = settings_from(options, paths)
    to_stdout = json_file == "-" or format_name == "json"
    with progress_lines(quiet) as progress:
        report = run_cases(paths_chosen, settings, command=command_line(), progress=progress)
    problems = write_files(report, json_file, junit_file)
    try:
        if to_stdout:
            from gradcheck.reports import json

            json.write(report, sys.stdout)
        else:
            from gradcheck.reports import FORMATS

            FORMATS[format_name](report, console(color), verbose, quiet)
    except (BrokenPipeError, SystemExit):  # the reader went away (rich exits); the outcome is the same
        silence_stdout()
    for problem in problems:
        show_error(problem)
    raise click.exceptions.Exit(USAGE if problems else report.exit_code)


def write_files(report: Any, json_file: str | None, junit_file: str | None) -> list[GradcheckError]:
    """Write the files that were asked for. A file that cannot be written keeps neither the other one nor the report back."""
    from gradcheck.reports import json, junit

    problems: list[GradcheckError] = []
    for write, name in ((json.write_file, None if json_file == "-" else json_file), (junit.write_file, junit_file)):
        try:
            if name:
                write(report, Path(name))
        except GradcheckError as error:
            problems.append(error)
    return problems


def command_line() -> str:
    return shlex.join(["gradcheck", *sys.argv[1:]])


def console(color: str) -> Console:
    from rich.console import Console

    forced = {"always": True, "never": False}.get(color)
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 80
    plain = color == "never" or (color == "auto" and "NO_COLOR" in os.environ)
    return Console(force_terminal=forced, no_color=plain, width=width, highlight=False, soft_wrap=False)


class progress_lines:
    """A status line on a terminal's stderr while workers work; nothing where stderr is no terminal, but for builds."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.status: Any = None

    def __enter__(self) -> Callable[[str], None]:
        if self.quiet or not sys.stderr.isatty():
            return self.plain
        from rich.console import Console

        self.status = Console(stderr=True).status("starting", spinner="dots")
        self.status.start()
        return self.update

    def update(self, line: str) -> None:
        from rich.markup import escape

        self.status.update(escape(line))

    def plain(self, line: str) -> None:
        """Progress is for terminals."""

    def __exit__(self, *error: object) -> None:
        if self.status is not None:
            self.status.stop()


@main.command("list", epilog=epilog("gradcheck list", "gradcheck list cases examples/", "gradcheck list backends"))
@click.argument("what", type=click.Choice(["cases", "backends"]), default="cases")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@further_backends
def list_command(what: str, paths: tuple[Path, ...], folders: tuple[Path, ...]) -> None:
    """List the cases in PATHS, or the backends."""
    from gradcheck import listing

    status = listing.backends(folders, click.echo) if what == "backends" else listing.cases(paths, folders, click.echo)
    raise click.exceptions.Exit(status)


@main.command(epilog=epilog("gradcheck explain GC202", "gradcheck explain noise-redrawn", "gradcheck explain"))
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> None:
    """Explain a code: what it means, why it happens, an example, the fix. Without CODE: list them all."""
    from gradcheck.diagnosis.codes import CODES, page

    if code is None:
        for entry in CODES.values():
            click.echo(f"{entry.code}  {entry.name:<26} {entry.title}")
        return
    text = page(code)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        click.echo(text.rstrip())


@main.command(
    epilog=epilog(
        "gradcheck doctor",
        "gradcheck doctor theano --rebuild",
        "gradcheck doctor jax --python jax=~/envs/jax/bin/python",
        "gradcheck doctor --contract my_backend/",
    )
)
@click.argument("backend", required=False, shell_complete=completion.frameworks)
@click.option("--rebuild", is_flag=True, help="Remove the isolated environment and build it anew.")
@click.option("--offline", is_flag=True, help="Do not use the network.")
@click.option(
    "--python",
    multiple=True,
    callback=pairs,
    metavar="BACKEND=PATH",
    shell_complete=completion.interpreters,
    help="Examine this interpreter.",
)
@click.option(
    "--contract",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Run the contract battery on the backend in this folder.",
)
@further_backends
def doctor(
    backend: str | None,
    rebuild: bool,
    offline: bool,
    python: dict[str, Path],
    contract: Path | None,
    folders: tuple[Path, ...],
) -> None:
    """Examine the interpreters that backends run in; build or repair what is missing.

    Exit codes: 0 healthy, 1 a backend does not keep the contract, 2 usage, 3 a backend cannot run.
    """
    from gradcheck.doctor import examine_all

    status = examine_all(backend, rebuild, offline, python, folders, click.echo, contract)
    raise click.exceptions.Exit(status)


@main.command(epilog=epilog("gradcheck lint", "gradcheck lint cases/rnn_vae.yaml"))
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@further_backends
def lint(paths: tuple[Path, ...], folders: tuple[Path, ...]) -> None:
    """Check case files without running a step. Exit codes: 0 clean, 2 problems, 5 no case."""
    from gradcheck import listing

    raise click.exceptions.Exit(listing.lint(paths, folders, click.echo))


@main.command(epilog=epilog("gradcheck schema > case.schema.json"))
def schema() -> None:
    """Print the JSON schema of case files, for editors."""
    import json

    from gradcheck.case_file import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command(epilog=epilog("gradcheck init my_model", "gradcheck init my_lstm --from lstm"))
@click.argument("name")
@click.option(
    "--from",
    "template",
    default="rnn_vae",
    show_default=True,
    shell_complete=completion.templates,
    help="The shipped case to start from.",
)
def init(name: str, template: str) -> None:
    """Write NAME.yaml (and NAME.py, if its step is one of Python) into the working directory, starting from a shipped case."""
    from gradcheck.starter import write

    for path in write(name, template):
        click.echo(f"wrote {path}")
    click.echo(f"now:  gradcheck run {name}.yaml")
