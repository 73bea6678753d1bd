"""Reads Python files without running them."""

from __future__ import annotations

import ast
import linecache
import sys
from pathlib import Path
from typing import Any

TRIES = 3


def text_of(file: Path | str) -> str:
    """The text of a source file, or of a notebook's cell, which is in memory alone. Raises OSError if there is none."""
    linecache.checkcache(str(file))
    lines = linecache.getlines(str(file))
    if not lines:
        raise OSError(f"no source of {file}")
    return "".join(lines)


def cell_name(file: Path | str) -> str:
    """What a notebook calls the cell that a file name stands for, as in its own tracebacks; "" if it is none."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if not hasattr(getattr(shell, "compile", None), "format_code_name"):
        return ""
    return " ".join(shell.compile.format_code_name(str(file)) or ())


def parse(text: str | bytes) -> ast.Module:
    """The syntax tree of a module. Raises SyntaxError or ValueError, as `ast.parse`.

    Up to 3.12.1 CPython counts a tree's depth for all threads together (gh-106905), so that a parse beside another one may end
    in a SystemError about a "recursion depth mismatch". That says nothing about the text: it is parsed again.
    """
    for _ in range(TRIES - 1):
        try:
            return ast.parse(text)
        except SystemError:
            continue
    return ast.parse(text)


def segment(text: str, node: ast.expr) -> str:
    """The source text of an expression."""
    return ast.get_source_segment(text, node) or ast.unparse(node)


def argument_of(text: str, node: ast.expr) -> str:
    """The source text of an expression that is to stand where a call stood: in parentheses unless it holds together anyway."""
    told = segment(text, node)
    return told if isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant) else f"({told})"


def replaced(text: str, node: ast.expr, new: str) -> str:
    """The text with one expression replaced. A node's columns count bytes of UTF-8."""
    lines = text.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    head = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    tail = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (head + new.encode() + tail).decode()
