"""Which rows does ``where='tokens > 1e8 and structure in ["dense", "btt"]'`` keep?

A small language read with Python's own parser and interpreted here: comparisons (chained ones too), ``in`` and
``not in``, ``and``, ``or``, ``not``, + - * /, numbers, quoted strings, lists and column names (dots allowed, as in
``config.model.d_model``). Nothing is evaluated by Python, so a table or a command line can run no code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_HELP = "write for example where='tokens > 1e8 and structure == \"btt\"'"


def select(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows of a table that meet a condition. Raises UserError naming the part that is not understood."""
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise UserError(f"where='{condition}' is not a condition; {_HELP}") from error
    try:
        mask = np.asarray(_value(tree.body, table))
    except TypeError as error:
        raise UserError(f"where='{condition}' compares a number with text; {_HELP}") from error
    if mask.dtype != bool:
        raise UserError(f"where='{condition}' is not true or false for a row; {_HELP}")
    kept = table[np.broadcast_to(mask, len(table))]
    if kept.empty:
        raise UserError(f"where='{condition}' keeps none of the {len(table)} rows")
    return kept


def _column(node: ast.expr, table: pd.DataFrame) -> pd.Series:
    """The column of a dotted name."""
    name = ast.unparse(node)
    if name not in table.columns:
        raise UserError(f"where names the column '{name}'; {suggest(name, map(str, table.columns))}")
    return table[name]


def _value(node: ast.expr, table: pd.DataFrame) -> Any:
    """A column, a constant or a mask."""
    match node:
        case ast.Constant(value=value) if isinstance(value, (int, float, str, bool)):
            return value
        case ast.Name() | ast.Attribute():
            return _column(node, table)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [_value(item, table) for item in items]
        case ast.BoolOp(op=op, values=values):
            parts = [np.asarray(_value(value, table), dtype=bool) for value in values]
            return np.logical_and.reduce(parts) if isinstance(op, ast.And) else np.logical_or.reduce(parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~np.asarray(_value(operand, table), dtype=bool)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, table)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_value(left, table), _value(right, table))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return _compare(left, ops, rights, table)
    raise UserError(f"where does not understand '{ast.unparse(node)}'; {_HELP}")


def _compare(left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr], table: pd.DataFrame) -> Any:
    """a < b < c, and membership in a list."""
    masks = []
    here = _value(left, table)
    for op, right in zip(ops, rights, strict=True):
        there = _value(right, table)
        if isinstance(op, ast.In | ast.NotIn):
            inside = np.asarray(pd.Series(here).isin(there if isinstance(there, list) else [there]))
            masks.append(~inside if isinstance(op, ast.NotIn) else inside)
        elif type(op) in _COMPARE:
            masks.append(np.asarray(_COMPARE[type(op)](here, there)))
        else:
            raise UserError(f"where does not understand '{type(op).__name__}'; {_HELP}")
        here = there
    return np.logical_and.reduce(masks)
