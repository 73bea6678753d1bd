"""Reads Python files without running them."""

from __future__ import annotations

import ast

TRIES = 3


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
