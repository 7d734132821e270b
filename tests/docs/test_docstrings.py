"""What a docstring says of arguments is said of arguments that there are."""

import ast
import re
from collections.abc import Iterator

from helpers.places import ROOT

TOPS = ("recsys", "eval", "pipelines", "benchmarks", "docs")
ARGUMENTS = re.compile(r"^Args:\n(.*?)(?:\n\n|\Z)", flags=re.MULTILINE | re.DOTALL)


def told() -> Iterator[tuple[str, list[str], set[str]]]:
    """Of each function and class with a section of arguments: where it stands, what is told, what it takes."""
    for top in TOPS:
        for file in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    section = ARGUMENTS.search(ast.get_docstring(node) or "")
                    if section:
                        where = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
                        yield where, re.findall(r"^    (\w+):", section[1], flags=re.MULTILINE), taken(node)


def taken(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    if isinstance(node, ast.ClassDef):
        fields = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)}
        inits = (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
        return fields.union(*map(taken, inits))
    given = node.args
    every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
    return {one.arg for one in every if one is not None}


def test_arguments_that_are_told_are_there() -> None:
    every = list(told())
    assert len(every) > 100
    wrong = {where: sorted(set(names) - have) for where, names, have in every}
    assert {where: names for where, names in wrong.items() if names} == {}
