"""`gradcheck init`: a first case of one's own, copied from a shipped one."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from gradcheck.catalog import suggest
from gradcheck.errors import UsageError


def templates() -> list[str]:
    """The names of the shipped cases."""
    shipped = files("gradcheck._cases")
    return sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir() if entry.name.endswith(".yaml"))


def write(name: str, template: str) -> list[Path]:
    """Write NAME.yaml, and NAME.py if its step is a file. Raises UsageError.

    That is: if either exists, the name is none, or there is no such template.
    """
    shipped, known = files("gradcheck._cases"), templates()
    if template not in known:
        raise UsageError(f"no shipped case '{template}'{suggest(template, known)}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise UsageError(f"'{name}' cannot be a case's name", hint="letters, digits, - and _, as in my_model")
    text = (shipped / f"{template}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^name:.*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    targets = [(Path(f"{name}.yaml"), text)]
    if found := re.search(r"^step:\s*([\w.-]+\.py):(\w+)", text, re.MULTILINE):  # else the step is in the case file
        module = name.replace("-", "_")
        text = text.replace(found[0], f"step: {module}.py:{found[2]}")
        step = (shipped / found[1]).read_text(encoding="utf-8")
        targets = [(Path(f"{name}.yaml"), text), (Path(f"{module}.py"), step)]
    written = []
    for path, _ in targets:
        if path.exists():
            raise UsageError(f"{path} exists already", hint="choose another name; nothing was written")
    for path, content in targets:
        try:
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}", context=str(error)) from error
        written.append(path)
    return written
