"""What tests share costs a test of one pure module little: nothing heavy is loaded before it is used."""

import subprocess
import sys

import pytest

from helpers.places import ROOT

HEAVY = {"labels", "made_evaluation", "made_musicnn", "made_tuning"}  # for tests of what loads torch or draws itself
TOO_MUCH = ("torch", "matplotlib", "pipelines", "recsys.fit", "sklearn")


@pytest.mark.slow
def test_neither_the_fixtures_nor_helpers_load_what_takes_seconds() -> None:
    names = sorted(file.stem for file in (ROOT / "tests" / "helpers").glob("*.py") if file.stem != "__init__")
    assert set(names) > HEAVY
    light = [f"helpers.{name}" for name in names if name not in HEAVY]
    code = f"""
import importlib, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
for name in ["conftest", *{light!r}]:
    importlib.import_module(name)
    loaded = [module for module in {TOO_MUCH!r} if module in sys.modules]
    if loaded:
        print(name, "loads", *loaded)
        break
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("", "")
