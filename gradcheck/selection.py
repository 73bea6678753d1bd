"""`-k EXPR`: which cases to run, by words in their names, with and, or, not and parentheses, as in pytest."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from gradcheck.errors import UsageError
from gradcheck.model import Case


@dataclass(frozen=True)
class Selection:
    """An empty expression selects everything. A word matches if it is part of the case's name or file name, in any case."""

    expression: str = ""

    def __post_init__(self) -> None:
        if self.expression:
            self._parsed()

    def matches(self, case: Case) -> bool:
        if not self.expression:
            return True
        text = f"{case.name} {case.path.name}".lower()
        return self._holds(self._parsed(), text)

    def _parsed(self) -> ast.expr:
        words = re.sub(
            r"[^\s()]+", lambda m: m[0] if m[0] in ("and", "or", "not") else repr(m[0].lower()), self.expression
        )
        try:
            tree = ast.parse(words, mode="eval").body
        except SyntaxError:
            tree = None
        if tree is None or any(not isinstance(n, KNOWN) for n in ast.walk(tree)):
            raise UsageError(
                f"-k: cannot read '{self.expression}'", hint='words with and, or, not: -k "rnn and not float32"'
            )
        return tree

    def _holds(self, node: ast.expr, text: str) -> bool:
        if isinstance(node, ast.BoolOp):
            combine = all if isinstance(node.op, ast.And) else any
            return combine(self._holds(value, text) for value in node.values)
        if isinstance(node, ast.UnaryOp):
            return not self._holds(node.operand, text)
        assert isinstance(node, ast.Constant)
        return str(node.value) in text


KNOWN = (ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Constant, ast.Load)
