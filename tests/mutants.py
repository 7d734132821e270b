"""Planted faults: seeded small changes of the code, each judged by the tests of its folder.

    python -m tests.mutants --seed 0 -n 60            # which faults, where, and whether a test noticed
    python -m tests.mutants --seed 0 -n 60 --tree DIR  # the same faults in another checkout of the same code

Folders take turns, so that each has its share. A fault goes into a copy of the tree; there the tests of the module run
first and then those of its folder, until one fails ("killed") or none has ("survived"). What takes longer than the
limit is killed too: a loop without an end is noticed. Which faults are tried follows from the code and the seed alone.
"""

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("recsys", "eval", "pipelines")
NEEDED = (*CODE, "tests", "benchmarks", "proto", "packaging", "docs")  # of the tree; the files beside them too
OTHER = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes from ``start`` to ``end`` of ``file`` become ``text``."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    text: str

    @property
    def folder(self) -> str:
        """The folder whose tests judge it, such as ``recsys/serving``."""
        parts = Path(self.file).parts
        return "/".join(parts[:2]) if parts[0] == "recsys" and len(parts) > 2 else parts[0]

    def tests(self, tree: Path) -> list[str]:
        """Its module's own tests, where there are some, and then all of its folder."""
        top, *below = self.folder.split("/")
        where = Path("tests", *below) if top == "recsys" else Path("tests", top)
        inner = Path(self.file).parts[2 if below else 1 :]
        own = where.joinpath(*inner[:-1]) / f"test_{inner[-1]}"
        rest = (
            [where] if top != "recsys" or below else sorted(p.relative_to(tree) for p in tree.glob("tests/test_*.py"))
        )
        return list(map(str, ([own] if (tree / own).exists() else []) + [path for path in rest if path != own]))


class Places(ast.NodeVisitor):
    """Where a module may be changed, and into what."""

    def __init__(self, file: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._file, self._source = file, source
        self._starts = [0]
        for line in source.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, kind: str, line: int, span: tuple[int, int], text: str) -> None:
        self.found.append(Mutant(self._file, line, kind, *span, text))

    def visit_Compare(self, node: ast.Compare) -> None:
        left, right = node.left, node.comparators[0]
        between = (self._span(left)[1], self._span(right)[0])
        sign = self._source[between[0] : between[1]].decode()
        if "\n" not in sign and "(" not in sign and ")" not in sign:
            self._add("comparison", node.lineno, between, f" {OTHER[type(node.ops[0])]} ")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        between = (self._span(node.left)[1], self._span(node.right)[0])
        sign = self._source[between[0] : between[1]].decode()
        if sign.strip() in ("+", "-"):
            self._add("sum", node.lineno, between, " - " if sign.strip() == "+" else " + ")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) in (int, float):
            self._add("constant", node.lineno, self._span(node), f"({self._text(node)} + 1)")

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add("not", node.lineno, self._span(node), f"bool({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add("return", node.lineno, self._span(node.value), "None")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._add("condition", node.lineno, self._span(node.test), f"not ({self._text(node.test)})")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.visit_If(node)  # type: ignore[arg-type]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)  # what an annotation says is no code

    def visit_arg(self, node: ast.arg) -> None:
        """Pass over annotations."""


def chosen(tree: Path, seed: int, n: int) -> list[Mutant]:
    """``n`` mutants of the code in ``tree``: folders in turn, and in each a module and a place by chance."""
    by_folder: dict[str, dict[str, list[Mutant]]] = defaultdict(dict)
    for file in sorted(file for top in CODE for file in (tree / top).rglob("*.py")):
        name, source = file.relative_to(tree).as_posix(), file.read_bytes()
        if name.startswith("recsys/v1/"):
            continue
        places = Places(name, source)
        places.visit(ast.parse(source))
        if places.found:
            by_folder[places.found[0].folder][name] = places.found
    rng, taken = random.Random(seed), list[Mutant]()
    turns = _turns(sorted(by_folder), rng)
    while len(taken) < n:
        modules = by_folder[next(turns)]
        sizes = [len(found) for found in modules.values()]
        mutant = rng.choice(rng.choices(list(modules.values()), sizes)[0])
        if mutant not in taken:
            taken.append(mutant)
    return taken


def _turns(folders: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(folders, len(folders))


def judged(tree: Path, mutant: Mutant | None, tests: list[str], limit_s: float) -> str:
    """What the tests say of a copy of the tree with the fault in it; of the tree as it is where it is None."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "tree"
        copy.mkdir()
        for path in tree.iterdir():
            if path.name in NEEDED:
                shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.is_file():
                shutil.copy(path, copy / path.name)
        if mutant is not None:
            file = copy / mutant.file
            source = file.read_bytes()
            file.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.end :])
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", *tests]
        # what was compiled before the change must not be taken for what is there now
        environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
        with subprocess.Popen(
            command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as run:
            try:
                said = run.communicate(timeout=limit_s)[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                return f"killed: more than {limit_s:g} s"
        if run.returncode == 0:
            return "survived"
        failed = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return f"killed: {(failed or said.splitlines()[-1:] or [str(run.returncode)])[0][:160]}"


def main() -> None:
    """Try them, a line each, and say how many were killed in each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--tree", type=Path, default=ROOT, help="a checkout with its tests")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for the tests of one fault")
    parser.add_argument("--out", type=Path, help="a file for what was found, a JSON object a line")
    parser.add_argument("--list", action="store_true", help="say what would be tried")
    parser.add_argument("--check", action="store_true", help="first see that the tests pass without any fault")
    given = parser.parse_args()
    tree, counts = given.tree.resolve(), defaultdict[str, list[int]](lambda: [0, 0])
    mutants = chosen(tree, given.seed, given.n)
    if given.check:
        for folder, one in {mutant.folder: mutant for mutant in mutants}.items():
            print(f"{folder}: {judged(tree, None, one.tests(tree), given.limit)} without a fault", flush=True)
    for number, mutant in enumerate(mutants, 1):
        told = f"{number:3} {mutant.file}:{mutant.line} {mutant.kind} -> {' '.join(mutant.text.split())[:60]}"
        if given.list:
            print(told)
            continue
        found = judged(tree, mutant, mutant.tests(tree), given.limit)
        counts[mutant.folder][found == "survived"] += 1
        print(f"{told}: {found}", flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(asdict(mutant) | {"number": number, "found": found}) + "\n")
    for folder, (killed, survived) in sorted(counts.items()):
        print(f"{folder:20} {killed:3} killed {survived:3} survived")
    if counts:
        print(
            f"{'all':20} {sum(k for k, _ in counts.values()):3} killed {sum(s for _, s in counts.values()):3} survived"
        )


if __name__ == "__main__":
    main()
