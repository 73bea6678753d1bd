"""A YAML file as plain data that remembers the line and column of every key and value."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradcheck._backends._worker.equations import laid_out
from gradcheck.model import Place

with warnings.catch_warnings():  # it adds filters of its own as it is imported; those of the process are its owner's
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
    from ruamel.yaml.reader import ReaderError

Loc = tuple[str | int, ...]  # the way to a value: ("parameters", "W", "shape", 0)

MAX_DEPTH = 40  # deeper than any case; keeps recursion over the data safe
MAX_NODES = 200_000  # aliases expand: a file of ten lines can mean a billion nodes
TAG = "tag:yaml.org,2002:"
INT_BASES = {"0x": 16, "0o": 8, "0b": 2}


class Source:
    """One case file: `data` (None if it could not be read) and the `problems` found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(shown(path))
        self.data: Any = None
        self.problems: list[Place] = []
        self._keys: dict[Loc, tuple[int, int]] = {}
        self._values: dict[Loc, tuple[int, int]] = {}
        self._nodes = 0
        self._text = ""
        self._scalars: dict[Loc, ScalarNode] = {}  # the texts of a step's equations

    def report(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        """Note a problem at the value at `loc` (or its key), or at the nearest thing around it that is in the file."""
        found = self._keys.get(loc) if at_key else self._values.get(loc)
        while found is None and loc:
            loc = loc[:-1]
            found = self._keys.get(loc, self._values.get(loc))
        self.report_at(*(found or (1, 1)), message)

    def report_at(self, line: int, column: int, message: str) -> None:
        self.problems.append(Place(self.shown, line, column, message))

    def line(self, loc: Loc) -> int:
        """The line of the key at `loc` (of the value, in a list)."""
        return self._keys.get(loc, self._values.get(loc, (1, 1)))[0]

    def laid_out(self, loc: Loc) -> tuple[int, str]:
        """(line, text) of the scalar at `loc`: the line that it begins on, and its text, each byte in the column where the file
        has it, behind a parenthesis in the first one (see backends/_worker/equations.py).
        """
        node = self._scalars[loc]
        start, raw = node.start_mark, self._text[node.start_mark.index : node.end_mark.index]
        before = self._text[start.index - start.column : start.index]
        line, column = start.line + 1, len(before.encode())
        if node.style in ("|", ">"):  # below its mark and indented: the parenthesis takes the place of the first blank
            line, column, raw = line + 1, 1, raw.partition("\n")[2].removeprefix(" ")
        elif node.style in ("'", '"'):
            column, raw = column + 1, raw[1:-1]
        value = str(_scalar(node))
        if raw.split() != value.split():  # escapes, which have no place of their own
            line, column, raw = start.line + 1, len(before.encode()) + 1, " ".join(value.split())
        return line, laid_out(raw.rstrip(), column)

    def characters(self, line: int, column: int) -> int:
        """The column in characters, from 1, of one in bytes of UTF-8, as Python's parser counts."""
        lines = self._text.split("\n", line)
        before = lines[line - 1].encode()[: column - 1] if line <= len(lines) else b""
        return len(before.decode(errors="ignore")) + 1

    def plain(self, node: Any, loc: Loc = ()) -> Any:
        """The node as dict, list, str, int, float, bool or None; notes repeated keys, odd keys and unusable scalars."""
        mark = self._values[loc] = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._nodes += 1
        if len(loc) > MAX_DEPTH or self._nodes > MAX_NODES:
            raise _TooLarge(*mark)
        if isinstance(node, SequenceNode):
            return [self.plain(child, (*loc, index)) for index, child in enumerate(node.value)]
        if isinstance(node, MappingNode):
            return self._mapping(node, loc)
        if loc[:2] == ("step", "equations"):
            self._scalars[loc] = node
        try:
            return _scalar(node)
        except ValueError as invalid:
            self.report_at(*mark, str(invalid))
            return None

    def _mapping(self, node: Any, loc: Loc) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            try:
                key = _scalar(key_node)
            except ValueError as invalid:
                self.report_at(*place, str(invalid))
                continue
            if not isinstance(key, str):
                self.report_at(*place, f"key {key!r} is not text: put it in quotes or give it a name")
            elif key in entries:
                self.report_at(*place, f"repeated key {key!r}, first on line {self._keys[*loc, key][0]}")
            else:
                self._keys[*loc, key] = place
                entries[key] = self.plain(value_node, (*loc, key))
                if entries[key] is None and not value_node.value:  # an empty value has the place of whatever follows
                    self._values[*loc, key] = place
        return entries


class _TooLarge(Exception):
    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column


def read(path: Path, text: str | None = None) -> Source:
    """Read a YAML 1.2 file. Never raises: what is wrong is in `problems`, and `data` is None if nothing came of it.

    text: taken for what the file holds, if given.
    """
    source = Source(path)
    try:
        raw = path.read_bytes() if text is None else text.encode()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as invalid:
        line, column = _line_column(raw[: invalid.start].decode("utf-8", "replace"))
        source.report_at(line, column, "not UTF-8 text: save the file as UTF-8")
    except IsADirectoryError:
        source.report((), "is a folder, not a case file")
    except FileNotFoundError:
        source.report((), "no such file")
    except (OSError, ValueError) as problem:
        source.report((), f"cannot be read: {getattr(problem, 'strerror', None) or problem}")
    else:
        _parse(source, text)
    return source


def _parse(source: Source, text: str) -> None:
    source._text = text
    too_large = "is nested too deeply or too large for a case file: put large values into an npz file"
    try:
        node = YAML(typ="rt", pure=True).compose(text)
        if node is None:
            source.report((), "the file is empty: `gradcheck init NAME` writes a case to start from")
        elif not isinstance(node, MappingNode):
            source.report((), "a case file is a mapping (`name: ...`, `step: ...`), this is something else")
        else:
            source.data = source.plain(node)
    except _TooLarge as problem:
        source.report_at(problem.line, problem.column, too_large)
    except RecursionError:
        source.report((), too_large)
    except ReaderError as problem:
        line, column = _line_column(text[: problem.position])
        character = text[problem.position : problem.position + 1]
        source.report_at(line, column, f"not YAML: character {character!r} is not allowed")
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        source.report_at(line, column, f"not YAML: {_one_line(problem.problem or problem.context or 'malformed')}")
    except Exception as problem:  # the parser lets all kinds of exceptions out on malformed text
        source.report((), f"not YAML: {_one_line(str(problem)) or type(problem).__name__}")


def _scalar(node: Any) -> Any:
    """The value of a scalar node by YAML 1.2's rules. Raises ValueError with the message for the user."""
    if not isinstance(node, ScalarNode):
        raise ValueError("a key must be text, not a list or a mapping")
    tag, text = str(node.tag), str(node.value)
    if node.style == ">":
        text = text.replace("\a", "")  # the parser's mark of a fold; no text can hold it
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{text!r} is not valid Unicode")
    digits = text.replace("_", "").lower()
    try:
        match tag.removeprefix(TAG):
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[digits]
            case "int":
                unsigned = digits.lstrip("+-")
                return int(digits, INT_BASES.get(unsigned[:2], 10))
            case "float":
                return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
            case "str" | "timestamp" | "merge" | "value":
                return text
    except (KeyError, ValueError):
        raise ValueError(f"{text[:40]!r} is not a number or truth value that can be read") from None
    raise ValueError(f"tag {tag!r} is not supported: write the plain value")


def shown(path: Path) -> Path:
    """The path as users should see it: relative to the working directory if it is below it, else as given."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'parameters'?`, or which words there are, or "" if there are none."""
    words = list(known)
    if close := difflib.get_close_matches(word, words, n=1):
        return f", did you mean {close[0]!r}?"
    return f", known: {', '.join(words[:12])}{', ...' if len(words) > 12 else ''}" if words else ""


def _line_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _one_line(text: str) -> str:
    return " ".join(text.split())
