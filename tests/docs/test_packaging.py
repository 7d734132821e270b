"""The Dockerfile and the systemd unit: they name options that `recsys serve` has, and files that are there."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from helpers.places import ROOT
from recsys.cli.main import app

DOCKERFILE = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
UNIT = (ROOT / "packaging" / "recsys.service").read_text(encoding="utf-8")
SERVE = typer.main.get_command(app).commands["serve"]


def instructions(name: str) -> list[str]:
    """What stands behind each instruction of the Dockerfile of that name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, flags=re.MULTILINE)


def unit(name: str) -> str:
    [found] = re.findall(rf"^{name}=(.*)$", UNIT, flags=re.MULTILINE)
    return found


def in_docker() -> list[str]:
    return json.loads(instructions("ENTRYPOINT")[0]) + json.loads(instructions("CMD")[0])


def in_unit() -> list[str]:
    program, *rest = shlex.split(unit("ExecStart"))
    assert Path(program).is_absolute(), "systemd asks for it"
    return [Path(program).name, *rest]


@pytest.mark.parametrize("command", [in_docker(), in_unit()], ids=["Dockerfile", "recsys.service"])
def test_its_command_is_one_that_serve_takes(command):
    assert command[:2] == ["recsys", "serve"]
    given = SERVE.make_context("serve", command[2:]).params  # parsed, and not run
    assert all(given[name] for name in ("tokens", "tls_cert", "tls_key")), "others can reach it"
    assert given["listen"] == "0.0.0.0:50051"


def test_the_dockerfile_copies_what_is_there_and_all_that_the_package_needs():
    copied = [word for line in instructions("COPY") for word in line.split()[:-1]]
    assert all((ROOT / word).exists() for word in copied), copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", "README.md"} <= set(copied)
    assert set(project["project"]["optional-dependencies"]) >= {"build"}, "which EXTRAS names"
    assert instructions("EXPOSE") == ["50051"]
    assert instructions("USER")[-1] != "root"
    assert instructions("STOPSIGNAL") == ["SIGTERM"], "which drains"


def test_nothing_but_what_is_copied_is_sent_to_the_builder():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = [word for line in instructions("COPY") for word in line.split()[:-1]]
    assert patterns[0] == "*", "a virtual environment is gigabytes"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == set(copied)


def test_what_the_comments_name_is_there():
    for text in (DOCKERFILE, UNIT):
        for file in re.findall(r"\bpackaging/[\w.]+", text):
            assert (ROOT / file).exists(), file
        for command in re.findall(r"recsys (token \w+|serve|build)", text):
            assert command.split()[0] in typer.main.get_command(app).commands


def test_the_unit_lets_a_server_write_where_its_store_is_and_nowhere_else():
    given = SERVE.make_context("serve", in_unit()[2:]).params
    assert Path(unit("ReadWritePaths")) in Path(given["store"]).parents
    assert unit("ProtectSystem") == "strict"
    assert unit("User") == "recsys"
    assert int(unit("TimeoutStopSec")) > 10, "the drain takes less"
