"""The typer app in, the reference of all commands out."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

import typer

from recsys.cli.main import app


def markdown() -> str:
    """A section for each command: how it is called, what it does, its arguments and options."""
    root: Any = typer.main.get_command(app)
    return "\n\n".join(_section(name, command) for name, command in _commands(root.commands))


def _commands(commands: dict[str, Any], before: str = "recsys") -> Iterator[tuple[str, Any]]:
    for name, command in commands.items():
        yield f"{before} {name}", command
        yield from _commands(getattr(command, "commands", {}), f"{before} {name}")


def _section(name: str, command: Any) -> str:
    level = "#" * (len(name.split()))
    lines = [f"{level} `{name}`", _sentence(command.help or "")]
    if getattr(command, "commands", {}):
        return "\n\n".join([*lines, "Its commands: " + ", ".join(f"`{member}`" for member in command.commands) + "."])
    given = [f"<{parameter.name}>" for parameter in command.params if parameter.param_type_name == "argument"]
    needed = [_spelled(parameter) for parameter in command.params if parameter.required and parameter.opts[0][0] == "-"]
    lines.append("```text\n" + " ".join([name, *given, *needed, "[OPTIONS]"]) + "\n```")
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        lines.append("\n".join(["| option | value | default | what |", "|---|---|---|---|", *rows]))
    return "\n\n".join(lines)


def _spelled(parameter: Any) -> str:
    return f"{parameter.opts[0]} <{parameter.name}>"


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names = f"`<{parameter.name}>`" if is_argument else ", ".join(f"`{name}`" for name in parameter.opts)
    flag = getattr(parameter, "is_flag", False)
    default = "required" if parameter.required else _default(parameter.default, flag)
    repeated = " May be given several times." if getattr(parameter, "multiple", False) else ""
    message = _sentence(getattr(parameter, "help", "") or "") + repeated
    return f"| {names} | {'' if flag else _kind(parameter)} | {default} | {_cell(message)} |"


def _kind(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    kind = (get_args(kind) or (kind,))[0]  # of a list, what is in it
    if issubclass(kind, Enum):
        return " \\| ".join(f"`{choice.value}`" for choice in kind)
    limits = (("≥", getattr(parameter, "min", None)), ("≤", getattr(parameter, "max", None)))
    name = {"str": "text", "int": "whole number", "float": "number"}.get(kind.__name__, kind.__name__.lower())
    return ", ".join([name, *(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)])


def _default(default: Any, flag: bool) -> str:
    if default is None or (flag and not default):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text.endswith(".") else f"{text}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
