"""The settings' classes in, the reference of all keys out: type, default, limits, and the comment beside each."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from recsys.config import RunSettings
from recsys.util.settings import Settings


def markdown() -> str:
    """A section for each table of the TOML file, in the order of the classes."""
    return "\n\n".join(_section(path, kind, default) for path, kind, default in _tables((), RunSettings()))


def _tables(path: tuple[str, ...], settings: Settings) -> Iterator[tuple[tuple[str, ...], type[Settings], Settings]]:
    yield path, type(settings), settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _tables((*path, name), value)


def _section(path: tuple[str, ...], kind: type[Settings], settings: Settings) -> str:
    heading = f"## `[{'.'.join(path)}]`" if path else "## At the top of the file"
    rows = []
    remarks = comments(kind)
    for name, field in kind.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            continue
        rows.append(f"| `{name}` | {_type(field)} | {_shown(value)} | {_cell(remarks.get(name, ''))} |")
    if not rows and path:
        return f"{heading}\n\n{_told(kind)}".strip()
    table = "\n".join(["| key | value | default | what |", "|---|---|---|---|", *rows])
    return "\n\n".join(part for part in (heading, _told(kind) if path else "", table) if part)


def _told(kind: type[Settings]) -> str:
    """What the class says of itself, without the names of its tables, of which one stands above."""
    text = inspect.cleandoc(kind.__doc__ or "")
    text = re.sub(r"\A``\[[\w.]+\]``(?: and ``\[[\w.]+\]``)*(?: in the run's TOML file)?[:.]?\s*", "", text).strip()
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return text[:1].upper() + text[1:]


def comments(kind: type[Settings]) -> dict[str, str]:
    """The comment beside or above each field of a class and of those it is made from, by the field's name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Settings) and base is not Settings:
            found |= _own_comments(base)
    return found


def _own_comments(kind: type[Settings]) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(kind))
    by_line = {
        token.start[0]: (token.string.lstrip("# "), source.splitlines()[token.start[0] - 1].lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    [body] = ast.parse(source).body
    found = {}
    for line in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            inside = [by_line[at][0] for at in range(line.lineno, (line.end_lineno or 0) + 1) if at in by_line]
            above: list[str] = []
            at = line.lineno - 1
            while by_line.get(at, ("", False))[1]:
                above.insert(0, by_line[at][0])
                at -= 1
            found[line.target.id] = " ".join([*above, *inside])
    return found


def _type(field: FieldInfo) -> str:
    limits = []
    for limit in field.metadata:
        signs = (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt"))
        limits += [f"{sign} {getattr(limit, name):g}" for sign, name in signs if getattr(limit, name, None) is not None]
    return ", ".join([_kind(field.annotation), *limits])


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        if isinstance(inner[0], type) and issubclass(inner[0], Settings):
            return "array of tables"
        return "list" if Ellipsis in inner else f"{len(inner)} numbers"
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if kinds:
        return " \\| ".join(_kind(kind) for kind in kinds)
    names = {"bool": "true / false", "int": "whole number", "float": "number", "str": "text"}
    return names.get(getattr(annotation, "__name__", ""), str(annotation))


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple) and value and isinstance(value[0], Settings):
        return f"{len(value)} tables"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    text = text.replace("|", "\\|")
    return text[:1].upper() + text[1:]
