"""The reference that is written from the code has all that there is: commands, keys, methods, fields, errors."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from docs.tools import hooks, reference_cli, reference_errors, reference_grpc, reference_settings
from helpers.pages import DOCS, PAGES, text_of
from helpers.places import ROOT
from recsys import errors
from recsys.cli.main import app
from recsys.config import RunSettings
from recsys.util.settings import Settings
from recsys.v1 import recommender_pb2 as pb


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    [found] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found


def test_every_option_of_every_command() -> None:
    text = reference_cli.markdown()
    for name, command in typer.main.get_command(app).commands.items():
        for member, one in getattr(command, "commands", {None: command}).items():
            part = section(text, f"`recsys {name}`" if member is None else f"`recsys {name} {member}`")
            rows = [row for row in part.splitlines() if row.startswith("| `")]
            assert len(rows) == len([p for p in one.params if p.name != "help"]), name
            for parameter in one.params:
                assert all(f"`{option}`" in part for option in parameter.opts if option.startswith("-")), (
                    name,
                    parameter.name,
                )
    assert "| `--backend` | `lmdb` \\| `duckdb` | `lmdb` |" in text
    assert "| `--max-message` | whole number, ≥ 1, ≤ 64 | `4` |" in text
    assert "recsys scan <folder> --out <out> [OPTIONS]" in text


def test_every_key_of_the_settings_with_its_default() -> None:
    text = reference_settings.markdown()

    def check(path: tuple[str, ...], settings: Settings) -> None:
        part = section(text, f"`[{'.'.join(path)}]`" if path else "At the top of the file")
        for name in type(settings).model_fields:
            value: Any = getattr(settings, name)
            if isinstance(value, Settings):
                check((*path, name), value)
            else:
                [row] = [row for row in part.splitlines() if row.startswith(f"| `{name}` |")]
                if isinstance(value, int | str) and not isinstance(value, bool):
                    assert f"| `{value}` |" in row, row

    check((), RunSettings())
    assert "| `keep_generations` | whole number, ≥ 1 | `3` | The current one counts |" in text
    assert "| `cost_of_new` | number, ≥ 0, < 1 | `0.005` | What played tracks may lose" in text, (
        "a comment above its key"
    )
    assert text.count("`[hybrid.wide]`") == text.count("`[audio.tasks]`") == 1, "a class's tables are in headings alone"


def tables(settings: Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, type[Settings]]]:
    """Every table of a settings file, and its class."""
    for name in type(settings).model_fields:
        if isinstance(value := getattr(settings, name), Settings):
            yield ".".join((*path, name)), type(value)
            yield from tables(value, (*path, name))


TABLES = dict(tables(RunSettings()))
NAMED = re.compile(r"(?<!`)(`{1,2})\[([a-z_]+(?:\.[a-z_]+)*)\](?: (\w+))?[^`\n]*\1")  # `[a.b] key = 1`, ``[a.b]``


@pytest.mark.parametrize("kind", sorted(set(TABLES.values()), key=lambda kind: kind.__name__))
def test_a_class_of_settings_begins_with_the_tables_that_it_is_read_from(kind: type[Settings]) -> None:
    head = re.match(r"``\[[\w.]+\]``(?: and ``\[[\w.]+\]``)*", kind.__doc__ or "")
    assert head is not None
    assert set(re.findall(r"\[(.+?)\]", head[0])) == {name for name, of in TABLES.items() if of is kind}


def test_a_table_of_settings_that_is_named_is_there_and_has_the_key() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    code = [file for folder in ("recsys", "eval", "pipelines") for file in sorted((ROOT / folder).rglob("*.py"))]
    wrong = []
    for file in (*PAGES, *code):
        for _, table, key in NAMED.findall(text_of(file)):
            known = table in extras or table.startswith("tool.") or table in TABLES
            if not known or (key and key not in TABLES[table].model_fields):
                wrong.append(f"{file.relative_to(ROOT)}: [{table}] {key}")
    assert wrong == []


def test_every_method_and_every_field_of_the_interface() -> None:
    text = reference_grpc.markdown()
    for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods:
        [row] = [row for row in text.splitlines() if row.startswith(f"| `{method.name}` |")]
        assert f"`{method.input_type.name}`" in row
        assert f"`{method.output_type.name}`" in row
        assert ("stream of" in row) == method.client_streaming
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        part = section(text, name)
        for field in message.fields:
            [row] = [row for row in part.splitlines() if row.startswith(f"| `{field.name}` |")]
            assert f"| {field.number} |" in row
            assert row.rstrip("| ").endswith("."), "it has a comment"


def test_every_error_with_its_exit_status() -> None:
    text = reference_errors.markdown()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.RecsysError):
            assert f"`{name}`" in text
    assert re.search(r"`NoSpaceError` \| `LookupError` \| 3 \|", text)
    assert re.search(r"`TakenError` \| `ValueError` \| 2 \|", text)
    assert re.search(r"`FullDiskError` \| `RuntimeError` \| 4 \|", text)


def test_every_part_is_on_a_page_and_a_marker_without_a_part_is_an_error() -> None:
    marked = [name for page in DOCS.rglob("*.md") for name in re.findall(r"<!-- generated: (\w+) -->", text_of(page))]
    assert sorted(marked) == sorted(hooks.PARTS)
    with pytest.raises(KeyError):
        hooks.filled("<!-- generated: nothing -->")


def test_pictures_follow_the_switch_of_the_site() -> None:
    class Page:
        class file:  # noqa: N801  # as mkdocs names it
            src_uri = "explanation/cold-start.md"

    text = hooks.on_page_markdown(text_of(DOCS / "explanation" / "cold-start.md"), Page())
    assert "<picture>" not in text
    assert "](../assets/cost-of-new-light.svg#only-light)" in text
    assert "](../assets/cost-of-new-dark.svg#only-dark)" in text
