"""Text as data: a line is a list of (text, style) spans that fits a width. No printing here, and nothing of rich."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

Span = tuple[str, str]
Line = list[Span]

NBSP = "\xa0"  # keeps words together while wrapping; a plain space once printed


def cells(text: str) -> int:
    """Columns a terminal gives to a text: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def pad(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where possible; newlines and indents of the text are kept."""
    return [piece for line in text.split("\n") for piece in _wrap_line(line, max(width, 2))]


def refill(text: str) -> str:
    """Prose without the newlines it was written with; blank and indented lines, and list items, start anew."""
    return re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", text)


def _wrap_line(text: str, width: int) -> list[str]:
    indent = re.match(r" *", text)[0][: width // 2]  # type: ignore[index]  # " *" always matches
    lines, line = [], indent
    for gap, word in re.findall(r"( *)([^ ]+)", text.lstrip(" ")):
        if line.strip() and cells(line + gap + word) > width:
            lines.append(line)
            line, gap = indent, ""
        line += gap + word
        while cells(line) > width:
            fit = next(n for n in range(len(line), 0, -1) if cells(line[:n]) <= width)
            lines.append(line[:fit])
            line = indent + line[fit:]
    return [*lines, line] if line.strip() or not lines else lines


def hang(label: str, text: str, width: int, label_style: str = "", style: str = "") -> list[Line]:
    """A label with the text hanging beside it; below it, if the label leaves too little room."""
    depth = cells(label)
    if depth > width * 3 // 5:
        margin = cells(label) - cells(label.lstrip())
        head = [[(line, label_style)] for line in wrap(label.rstrip(), width)]
        return head + [[(" " * (margin + 2) + line, style)] for line in wrap(text, width - margin - 2)]
    first, *rest = wrap(text, width - depth)
    return [[(label, label_style), (first, style)], *([(" " * depth + line, style)] for line in rest)]


def command_lines(label: str, command: str, width: int) -> list[Line]:
    """A shell command that can be pasted although it is wrapped: broken between words only, with a backslash."""
    words = re.findall(r"""(?:-\w +(?!-))?(?:"[^"]*"|'[^']*'|\S)+""", command)  # -b NAME stays together
    roomy = cells(label) + max(map(cells, words)) + 2 <= width
    lines, indent = ([label], " " * cells(label)) if roomy else ([label, "  "], "  ")
    for word in words:
        if lines[-1].strip() not in ("", label.strip()) and cells(lines[-1] + word) + 2 > width:
            lines[-1] += "\\"
            lines.append(indent)
        lines[-1] += word + " "
    return [[(label, "bold"), (lines[0][len(label) :].rstrip(), "")], *([(line.rstrip(), "")] for line in lines[1:])]


def plain(lines: Iterable[Line]) -> str:
    """The lines without styles, each ending in a newline, none in a space."""
    return "".join("".join(text for text, _ in line).replace(NBSP, " ").rstrip() + "\n" for line in lines)
