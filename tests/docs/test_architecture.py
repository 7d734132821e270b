"""ARCHITECTURE.md names every folder and only files that are there; imports run down its picture."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from helpers.pages import text_of
from helpers.places import ROOT

PAGE = ROOT / "ARCHITECTURE.md"
TEXT = text_of(PAGE)
PICTURE = re.search(r"^```text\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)[1]
TOPS = ("recsys", "eval", "pipelines")
INSIDE = ("eval/", "recsys/audio/", "recsys/catalogue/", "pipelines/")  # one room with what is inside it


def folders() -> list[str]:
    """Every folder of the three packages that has modules, and the other ones at the top."""
    inside = {path.parent for top in TOPS for path in (ROOT / top).rglob("*.py")}
    others = [
        ROOT / name
        for name in ("proto", "benchmarks", "packaging", "docs", "tests", "docs/tools", "tests/helpers", "tests/golden")
    ]
    return sorted(f"{path.relative_to(ROOT)}/" for path in (*inside, *others))


def test_every_folder_is_named() -> None:
    assert [folder for folder in folders() if folder not in TEXT] == []
    for folder in re.findall(r"^ +((?:recsys|eval|pipelines)/\S*)", PICTURE, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_every_file_that_is_named_is_there() -> None:
    """Short names stand for files of the folder named before them in the same step."""
    for step in re.split(r"\n(?=\d\. |## )", TEXT.partition("## Five invariants")[2]):
        place = None
        for name in re.findall(r"`([\w/]+\.py)`", step):
            if "/" in name:
                place = (ROOT / name).parent
                assert (ROOT / name).exists(), name
            else:
                near = [
                    *([place] if place else []),
                    *(ROOT / "recsys" / room for room in ("serving", "live", "ranking", "eventlog", "uploads")),
                ]
                assert any((folder / name).exists() for folder in near), name


def rooms() -> list[list[str]]:
    """The rooms from top to bottom, each by the names that begin its modules."""
    found: list[list[str]] = []
    for line in PICTURE.splitlines():
        for folder, told in re.findall(r"^ +((?:recsys|eval|pipelines)/(?:\w+/)*) +(.*)$", line):
            if folder == "recsys/":
                found.append([f"recsys.{name}" for name in re.findall(r"(\w+)\.py", told)])
            elif not any(folder != outer and folder.startswith(outer) for outer in INSIDE):
                found.append([folder.strip("/").replace("/", ".")])
    return found


@cache
def room_of(module: str) -> int | None:
    for place, names in enumerate(ROOMS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return place
    return None


ROOMS = rooms()
OUTSIDE = ("recsys.__main__", "recsys")  # what starts the command line; names that point into the package


def imports() -> list[tuple[str, str]]:
    """Each import of one of our modules by another, those for types alone left out."""
    files = {_name(path): path for top in TOPS for path in (ROOT / top).rglob("*.py")}
    found = []
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing = {
            id(node)
            for block in tree.body  # a block for types stands at the top of a module
            if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found.append((module, full if full in files else node.module))
    return [(module, target) for module, target in found if target in files and target != module]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")


def test_imports_run_down_the_picture() -> None:
    pairs = [(a, b) for a, b in imports() if a not in OUTSIDE and b != "recsys"]
    assert len(pairs) > 500
    lost = {module for pair in pairs for module in pair if room_of(module) is None}
    assert lost == set(), "modules that stand in no folder of the picture"
    upward = [(a, b) for a, b in pairs if room_of(b) < room_of(a)]
    assert upward == []


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module, target in imports():
        graph.setdefault(module, set()).add(target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them
