"""Imports run downward: by folder in the order of ARCHITECTURE.md, and no two modules in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from helpers.places import ROOT

# from the lowest up; the folders of eval and pipelines stand above those of recsys, the command line above all
ORDER = (
    "recsys.v1", "recsys.errors", "recsys.types", "recsys.util", "recsys.catalogue", "recsys.content", "recsys.audio",
    "recsys.cf", "recsys.hybrid", "recsys.store", "recsys.ranking", "recsys.eventlog", "recsys.recommender",
    "recsys.uploads", "recsys.live", "recsys.config", "recsys.fit", "recsys.client", "recsys", "recsys.serving",
    "eval.splitting", "eval.metrics", "eval.baselines", "eval.results", "eval.judge", "eval.aggregate",
    "eval.checkpoint", "eval.significance", "eval.representation", "eval.report", "eval.settings", "eval.facts",
    "eval.curves", "eval.split_run", "eval.held_out", "eval.run", "eval.tuning", "eval", "pipelines",
    "recsys.cli", "recsys.__main__",
)  # fmt: skip


def modules() -> dict[str, ast.Module]:
    found = {}
    for top in ("recsys", "eval", "pipelines"):
        for file in (ROOT / top).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imported(module: ast.Module) -> Iterator[str]:
    """Modules of ours that one imports, at any place; what only types name counts too."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES or node.module in MODULES:
                    yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    """The entry of ``ORDER`` that a module belongs to: the longest that begins its name."""
    return max((one for one in ORDER if module == one or module.startswith(f"{one}.")), key=len)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_nothing_from_above(name: str) -> None:
    above = [other for other in imported(MODULES[name]) if ORDER.index(room(other)) > ORDER.index(room(name))]
    assert above == []


def test_no_two_modules_import_each_other() -> None:
    graph = {name: set(imported(module)) - {name} for name, module in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them
