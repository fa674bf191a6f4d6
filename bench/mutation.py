"""Which small changes of a source file would be mistakes? Each is a piece of text to put in another's place.

Operators: the other of two arithmetic signs, of two comparisons, of and/or, min/max, first/last and the like; numbers
one up, one down, of the other sign; conditions turned round; statements left out; the other order of sorting.

Left alone is what only people read or only a type checker does: annotations, aliases of types, doc and error texts,
formatted strings, decorators, asserts, and what runs under ``if TYPE_CHECKING`` or ``__name__ == "__main__"``.
Positions are bytes, as those of ``ast``.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitOr: ("|", "&"), ast.BitAnd: ("&", "|"), ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")), ast.LtE: ("<=", ("<", ">")), ast.Gt: (">", (">=", "<=")), ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",)), ast.In: ("in", ("not in",)), ast.Is: ("is", ("is not",)),
    ast.NotIn: ("not in", ("in",)), ast.IsNot: ("is not", ("is",)),
}  # fmt: skip
_PAIRS = (
    ("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("nanmin", "nanmax"), ("floor", "ceil"),
    ("any", "all"), ("zeros", "ones"), ("ffill", "bfill"), ("idxmin", "idxmax"),
)  # fmt: skip
# Whether a zip checks its lengths, and which frame a warning names, changes no result.
_FOR_READERS = ("strict", "stacklevel")
_OTHER = {name: other for pair in _PAIRS for name, other in (pair, pair[::-1])}

Where = tuple[tuple[int, int], bool]
"""First and last line of a statement, and whether it is executed at import."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    """Path below the root of the tree."""
    line: int
    """Where the change begins, from 1."""
    kind: str
    """Name of the operator."""
    start: int
    """First byte of what is replaced."""
    end: int
    """Byte after its last."""
    old: str
    """The text there."""
    new: str
    """The text in its place."""
    lines: tuple[int, int]
    """First and last line of the statement, or of the head of a block, that holds the change."""
    at_import: bool
    """Whether the change is executed when the module is imported, not when a function is called."""

    def applied(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants(file: str, source: bytes) -> list[Mutant]:
    """All changes of a module, by position."""
    unique = {(one.start, one.end, one.new): one for one in _Finder(file, source).run()}
    return sorted(unique.values(), key=lambda one: (one.start, one.end, one.new))


def parses(source: bytes) -> bool:
    """Whether text is still a module."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class _Finder:
    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source = file, source
        lines = source.splitlines(keepends=True)
        self.begins = [0, *accumulate(len(line) for line in lines)]
        self.tokens = []
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type in (tokenize.OP, tokenize.NAME):
                row, column = token.start
                at = self.begins[row - 1] + len(lines[row - 1].decode()[:column].encode())
                self.tokens.append((at, at + len(token.string.encode()), token.string))

    def run(self) -> Iterator[Mutant]:
        yield from self._block(ast.parse(self.source).body, at_import=True, top=True)

    def _block(self, body: list[ast.stmt], *, at_import: bool, top: bool = False) -> Iterator[Mutant]:
        for statement in body:
            if not _is_for_readers(statement, top):
                yield from self._statement(statement, at_import)

    def _statement(self, statement: ast.stmt, at_import: bool) -> Iterator[Mutant]:
        inside = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        heads = list(_expressions(statement))
        last = max((head.end_lineno or 0 for head in heads), default=statement.lineno)
        span = (statement.lineno, last)
        where = (span, at_import)
        for name in ("body", "orelse", "finalbody"):
            yield from self._block(getattr(statement, name, []), at_import=at_import and not inside)
        for handler in getattr(statement, "handlers", []):
            yield from self._block(handler.body, at_import=at_import)
        for case in getattr(statement, "cases", []):
            yield from self._block(case.body, at_import=at_import)
        yield from self._whole(statement, where)
        for head in heads:
            for node in _walk(head):
                yield from self._expression(node, where)

    # --- operators ------------------------------------------------------------------------------------------------

    def _whole(self, statement: ast.stmt, where: Where) -> Iterator[Mutant]:
        if isinstance(statement, ast.AugAssign):
            old, new = _ARITHMETIC[type(statement.op)]
            yield from self._sign(statement.target, statement.value, f"{old}=", f"{new}=", "assignment", where)
        calls = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        if calls or isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue | ast.Break):
            yield self._change(statement, "pass", "dropped", where)
        if isinstance(statement, ast.If | ast.While):
            yield from self._negated(statement.test, where)

    def _expression(self, node: ast.AST, where: Where) -> Iterator[Mutant]:
        match node:
            case ast.BinOp() if type(node.op) in _ARITHMETIC and not (_is_text(node.left) or _is_text(node.right)):
                old, new = _ARITHMETIC[type(node.op)]
                yield from self._sign(node.left, node.right, old, new, "arithmetic", where)
            case ast.Compare():
                for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                    old, others = _COMPARISONS[type(op)]
                    for new in others:
                        yield from self._sign(left, right, old, new, "comparison", where)
            case ast.BoolOp():
                old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self._sign(left, right, old, new, "and/or", where)
            case ast.UnaryOp():
                kind = "condition" if isinstance(node.op, ast.Not) else "sign"
                if isinstance(node.op, ast.Not | ast.USub):
                    yield self._change(node, self._text(node.operand), kind, where)
            case ast.Constant() if not isinstance(node.value, str | bytes) and node.value not in (None, ...):
                yield from self._constant(node, where)
            case ast.IfExp():
                yield from self._negated(node.test, where)
            case ast.comprehension():
                for test in node.ifs:
                    yield from self._negated(test, where)
            case ast.Name() | ast.Attribute():
                yield from self._name(node, where)
            case ast.Call(func=ast.Name(id="sorted")) if all(word.arg != "reverse" for word in node.keywords):
                text = self._text(node)[:-1].rstrip().removesuffix(",")
                yield self._change(node, f"{text}, reverse=True)", "order", where)
            case ast.Call(func=ast.Name(id="reversed")):
                yield self._change(node.func, "list", "order", where)

    def _constant(self, node: ast.Constant, where: Where) -> Iterator[Mutant]:
        if isinstance(node.value, bool):
            yield self._change(node, str(not node.value), "constant", where)
        elif isinstance(node.value, int | float):
            text = self._text(node)
            wanted = [f"({text} + 1)", f"({text} - 1)", *([f"(-{text})"] if node.value else [])]
            for new in wanted:
                yield self._change(node, new, "constant", where)

    def _name(self, node: ast.Name | ast.Attribute, where: Where) -> Iterator[Mutant]:
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in _OTHER and isinstance(node.ctx, ast.Load):
            yield self._change(node, self._text(node).removesuffix(name) + _OTHER[name], "min/max", where)

    def _negated(self, test: ast.expr, where: Where) -> Iterator[Mutant]:
        """What has no operator of its own to turn round."""
        alone = isinstance(test, ast.Compare) and len(test.ops) == 1
        if not alone and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            yield self._change(test, f"(not ({self._text(test)}))", "condition", where)

    # --- positions ------------------------------------------------------------------------------------------------

    def _sign(self, left: ast.expr, right: ast.expr, old: str, new: str, kind: str, where: Where) -> Iterator[Mutant]:
        """The operator between two operands: its first word or sign outside of them."""
        low, high = self._span(left)[1], self._span(right)[0]
        between = [token for token in self.tokens if low <= token[0] < high]
        words = old.split()
        for first, last in zip(between, between[len(words) - 1 :], strict=False):
            if first[2] == words[0] and last[2] == words[-1]:
                yield self._at(first[0], last[1], new, kind, where)
                return

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.begins[node.lineno - 1] + node.col_offset, self.begins[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _change(self, node: ast.expr | ast.stmt, new: str, kind: str, where: Where) -> Mutant:
        return self._at(*self._span(node), new, kind, where)

    def _at(self, start: int, end: int, new: str, kind: str, where: Where) -> Mutant:
        line = self.source.count(b"\n", 0, start) + 1
        old = self.source[start:end].decode()
        return Mutant(self.file, line, kind, start, end, old, new, where[0], where[1])


def _is_for_readers(statement: ast.stmt, top: bool) -> bool:
    """Whether a statement says nothing to the program: texts, asserts, aliases of types, what only a checker reads."""
    match statement:
        case ast.Assert():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp(op=ast.BitOr())):
            # An alias of types is named as a type is: Row, not row or ROW.
            return top and name != name.upper() and name != name.lower()
    return False


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Expressions of a statement itself, not of its blocks."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (default for default in (*statement.args.defaults, *statement.args.kw_defaults) if default)
    elif isinstance(statement, ast.AnnAssign):
        yield from (part for part in (statement.target, statement.value) if part)
    elif isinstance(statement, ast.With | ast.AsyncWith):
        yield from (item.context_expr for item in statement.items)
    elif isinstance(statement, ast.Match):
        yield statement.subject
    elif not isinstance(statement, ast.ClassDef | ast.Raise):
        yield from (child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.expr))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, without formatted strings and the annotations of types in calls of ``cast``."""
    if isinstance(node, ast.JoinedStr):
        return
    yield node
    children: Iterator[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("cast", "isinstance"):
        children = iter(node.args[1:] if node.func.id == "cast" else node.args[:1])
    for child in children:
        if not (isinstance(child, ast.keyword) and child.arg in _FOR_READERS):
            yield from _walk(child)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
