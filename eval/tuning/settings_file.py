"""Values by the dotted path of a setting in, a settings file that a build takes out.

    RunSettings, {"hybrid.als.l2": 3.0}  ->  with_values     ->  RunSettings
    RunSettings                          ->  write_settings  ->  TOML, with comments on top

A file holds what was set and nothing more, so that all else follows the defaults of the version that reads it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from eval.results import write_beside
from recsys.config import RunSettings, load_settings
from recsys.errors import ArtefactError


def value_at(settings: RunSettings, path: str) -> Any:
    """Find a setting's value, or a section, by its dotted path; ``AttributeError`` where there is none."""
    found: Any = settings
    for name in path.split("."):
        found = getattr(found, name)
    return found


def with_values(settings: RunSettings, values: Mapping[str, Any]) -> RunSettings:
    """Set values by their dotted paths, checked as if a file had them; what was set before stays set.

    ``pydantic.ValidationError`` is raised where a path is unknown or a value does not fit.
    """
    given = _given(settings)
    for path, value in values.items():
        *sections, name = path.split(".")
        section = given
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return RunSettings.model_validate(given)


def write_settings(settings: RunSettings, path: Path, comments: Iterable[str]) -> None:
    """Write what was set as TOML under a line of comment each; the file is read back before it gets its name.

    Raises:
        ArtefactError: it cannot be written, or does not say what the settings are.
    """
    lines = "".join(f"# {_printable(line)}\n" for line in comments)
    text = f"{lines}\n{tomli_w.dumps(_given(settings))}"

    def write(beside: Path) -> None:
        beside.write_text(text, encoding="utf-8")
        if load_settings(beside) != settings:
            raise ArtefactError(f"{path} would not read back as the settings that were to be written; report this")

    write_beside(path, write)


def _given(settings: RunSettings) -> dict[str, Any]:
    """What was set, as plain values; TOML has no null, and where a null may be set it is the default."""
    return settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _printable(line: str) -> str:
    """Keep a comment to one line of UTF-8: a command may hold any character."""
    return "".join(char if char.isprintable() else "?" for char in line)
