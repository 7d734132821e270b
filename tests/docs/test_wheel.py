"""The wheel in an environment of its own: its commands run from anywhere, and all that they need is in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from helpers.places import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and dependencies from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("recsys", "eval", "pipelines", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source"], check=True)
    [wheel] = folder.glob("recsys-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder / "venv")}))
    subprocess.run([*pip, "--python", folder / "venv" / "bin" / "python", "install", "--no-deps", wheel], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    return folder / "venv" / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "evaluate", "build", "serve", "demo"])
def test_commands_run_from_elsewhere(installed: Path, tmp_path: Path, command: str) -> None:
    words = [installed / "recsys", *command.split(), "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"recsys {command}".strip() in ran.stdout


@pytest.mark.slow
def test_what_runs_is_the_wheel_and_has_its_files(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.resources as files, recsys.cli.main, eval.report.page, pipelines.build\n"
        "print(recsys.__file__, eval.__file__ or eval.__path__[0], pipelines.__file__ or pipelines.__path__[0])\n"
        "for folder, name in (('eval.report', 'page.css'), ('eval.report', 'page.js'), ('pipelines', 'example.toml'),\n"
        "                     ('recsys', 'py.typed')):\n"
        "    assert (files.files(folder) / name).is_file(), name\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [installed / "python", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert all(str(installed.parent) in path for path in ran.stdout.split())
