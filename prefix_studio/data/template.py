"""Jinja templates over a row's columns, in a sandbox small enough to reason about.

A template may print columns, filter, compare, branch and loop; nothing else (no macros, includes, or calls beyond a
few text methods). Work and output are bounded, so a template that never ends is an error of its own instead of a hung
process. Cells are data: what looks like a template inside a cell is printed, not run. Every column stands under its
own name, and all of them under `row`, for names Jinja cannot spell: `{{ row["Customer question"] }}`.
"""

from __future__ import annotations

import difflib
import json
import keyword
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import BuiltinMethodType
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

from prefix_studio.errors import StudioError

MAX_SOURCE = 20_000  # characters of a template
MAX_TEXT = 1_000_000  # characters of a rendered text, and of every text made on the way
MAX_STEPS = 100_000  # rounds of all loops of one rendering together

ALLOWED_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Slice),
    *(nodes.Getattr, nodes.Getitem, nodes.Call, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
ALLOWED_FILTERS = frozenset(
    "abs attr capitalize count d default dictsort first float int items join last length list lower map max min reject"
    " rejectattr replace reverse round select selectattr sort string striptags sum title tojson trim truncate unique"
    " upper wordcount".split()
)
ALLOWED_METHODS = frozenset(
    "capitalize count endswith find get index isalpha isdigit items keys lower lstrip partition removeprefix"
    " removesuffix rpartition rsplit rstrip split splitlines startswith strip title upper values".split()
)
RESERVED_NAMES = frozenset((*keyword.kwlist, "true", "false", "none", "row", "loop", "self", "range", "set"))


class Template:
    """One template of a recipe, checked against the columns it will see.

    name: the recipe field, such as `data.prompt`; errors start with it.
    Raises StudioError (category data): a syntax error with its line, a column that does not exist with the known
    ones, or something a template may not do.
    """

    def __init__(self, text: str, columns: Sequence[str], *, name: str):
        self.name = name
        self.text = text
        if len(text) > MAX_SOURCE:
            raise StudioError(f"{name} is longer than {MAX_SOURCE:,} characters.", "Shorten the template.", "data")
        environment = Sandbox()
        try:
            tree = environment.parse(text)
            refuse_forbidden(tree, name)
            self.columns = self.columns_of(tree, columns)
            self.compiled = environment.from_string(Bounds().visit(tree).set_environment(environment))
        except TemplateSyntaxError as error:
            raise StudioError(
                f"{name}, line {error.lineno}: {lower_first(error.message or 'syntax error')}.",
                f"A column is written {written_column(columns[0]) if columns else '{{ column }}'}.",
                "data",
            ) from error
        except RecursionError as error:
            raise StudioError(f"{name} is nested too deeply.", "Simplify the template.", "data") from error

    def columns_of(self, tree: nodes.Template, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns that the template asks for. Raises StudioError for one that the rows do not have."""
        by_name = find_undeclared_variables(tree) - {"row", "range"}
        by_row = {
            node.arg.value
            for node in tree.find_all(nodes.Getitem)
            if isinstance(node.node, nodes.Name) and node.node.name == "row" and isinstance(node.arg, nodes.Const)
        }
        asked = sorted(by_name | {str(column) for column in by_row})
        for column in asked:
            require_column(column, columns, self.name, written_column)
        return tuple(asked)

    def render(self, row: Mapping[str, Any], number: int) -> str:
        """The text of one row; number (from 1) is for the errors."""
        values = {column: "" if value is None else value for column, value in row.items()}
        pieces: list[str] = []
        length = 0
        try:
            for piece in self.compiled.generate({**values, "row": values, "_steps": [0]}):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_TEXT:
                    raise TooMuch(f"it renders more than {MAX_TEXT:,} characters")
        except TooMuch as error:
            raise StudioError(f"{self.name}, row {number}: {error}.", "Simplify the template.", "data") from error
        except (UndefinedError, SecurityError) as error:
            raise StudioError(
                f"{self.name}, row {number}: {lower_first(str(error)).rstrip('.')}.",
                "Use columns, filters such as |trim, and default('...').",
                "data",
            ) from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise StudioError(
                f"{self.name}, row {number}: {lower_first(str(error)).rstrip('.')}.",
                "Check what the template does with this row's values.",
                "data",
            ) from error
        return "".join(pieces)


def require_column(column: str, columns: Sequence[str], field: str, written: Callable[[str], str] = str) -> None:
    """Raises StudioError, naming the recipe's field, the nearest and all known columns, when there is no such column.

    written: how the field spells a column.
    """
    if column in columns:
        return
    close = difflib.get_close_matches(column, columns, 1) or [known for known in columns if column in known.split()]
    known = f"Known columns: {', '.join(columns)}."
    raise StudioError(
        f"{field} asks for the column {column!r}, which the rows do not have.",
        f"Did you mean {written(close[0])}? {known}" if close else known,
        "data",
    )


def written_column(column: str) -> str:
    """How a template prints this column."""
    plain = column.isidentifier() and column not in RESERVED_NAMES and not column.startswith("_")
    return f"{{{{ {column if plain else f'row[{json.dumps(column, ensure_ascii=False)}]'} }}}}"


def written_value(value: Any) -> Any:
    """A cell as text: None is empty, a text is itself, numbers, lists and objects stand as JSON writes them."""
    if isinstance(value, str | Undefined):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # dates and decimals, from Parquet


# The sandbox


class TooMuch(Exception):
    """A template did, or wrote, more than a template may."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with only the filters, operators and methods whose cost their input bounds."""

    intercepted_binops = frozenset("+*%")

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, finalize=written_value, keep_trailing_newline=True)
        self.globals = {"range": safe_range}
        self.filters = {name: self.filters[name] for name in ALLOWED_FILTERS}
        self.filters |= {
            "join": joined,
            "replace": replaced,
            "tojson": as_json,
            "string": lambda value: str(written_value(value)),
            "_counted": counted_rounds,
            "_together": joined,
        }

    def is_safe_callable(self, obj: Any) -> bool:
        is_method = isinstance(obj, BuiltinMethodType) and isinstance(obj.__self__, str | list | dict | tuple)
        return obj is safe_range or (is_method and obj.__name__ in ALLOWED_METHODS)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % values is not for templates: write the values where they belong")
        if operator == "*" and (hasattr(left, "__len__") or hasattr(right, "__len__")):
            raise SecurityError("a text or list cannot be multiplied in a template")
        if operator == "*":
            refuse_long(size(left) + size(right))
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            refuse_long(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


class Bounds(NodeTransformer):
    """Puts a counter into every loop, and a limit into every `~`."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_together", [], [], None, None, lineno=node.lineno)


def refuse_forbidden(tree: nodes.Template, name: str) -> None:
    for node in tree.find_all(nodes.Node):
        word = type(node).__name__.lower()
        if not isinstance(node, ALLOWED_NODES) or (isinstance(node, nodes.For) and node.recursive):
            raise StudioError(
                f"{name}, line {node.lineno}: a template may not use {word}.",
                "Print columns, with filters, if and for.",
                "data",
            )
        if isinstance(node, nodes.Filter) and node.name not in ALLOWED_FILTERS:
            close = difflib.get_close_matches(node.name, ALLOWED_FILTERS, 1)
            raise StudioError(
                f"{name}, line {node.lineno}: there is no filter {node.name!r}.",
                f"Did you mean {close[0]}?" if close else f"Known filters: {', '.join(sorted(ALLOWED_FILTERS))}.",
                "data",
            )


@pass_context
def counted_rounds(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    steps = context["_steps"]  # a list of one number, shared by all loops of this rendering
    for value in values:
        steps[0] += 1
        if steps[0] > MAX_STEPS:
            raise TooMuch(f"its loops go round more than {MAX_STEPS:,} times")
        yield value


def joined(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    get = (lambda value: value) if attribute is None else operator.itemgetter(attribute)
    parts: list[str] = []
    length = 0
    for value in values:
        parts.append(str(written_value(get(value))))
        length += len(parts[-1]) + len(separator)
        refuse_long(length)
    return separator.join(parts)


def replaced(text: Any, old: str, new: str, count: int = -1) -> str:
    text, old, new = str(written_value(text)), str(old), str(new)
    refuse_long(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def size(number: Any) -> int:
    return number.bit_length() if isinstance(number, int) else 0


def refuse_long(length: int) -> None:
    if length > MAX_TEXT:
        raise TooMuch(f"it makes a text of more than {MAX_TEXT:,} characters")


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
