"""Lists the names that others rely on: from ``tests/``, ``python -m golden.make_names STORE...`` writes names.json.

The stores are built ones, one with audio and one that was served: what lies in them is listed.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import typer
from pydantic import BaseModel

FILE = Path(__file__).with_name("names.json")


def names(stores: Sequence[Path]) -> dict[str, list[str]]:
    """Every name by its kind, in order."""
    from recsys.cli.main import EXIT, app

    found = {
        "command line": _options(typer.main.get_command(app), "recsys"),
        "settings": _settings(),
        "wire": _wire(),
        "metrics": _metrics(),
        "exit status": [f"{kind.__name__} {status}" for kind, status in EXIT],
        "files of a store": [name for store in stores for name in _files(store)],
        "sql": [name for store in stores for name in _sql(store)],
    }
    return {kind: sorted(set(some)) for kind, some in found.items()}


def _options(command: Any, said: str) -> Iterator[str]:
    yield said
    for parameter in command.params:
        yield from (f"{said} {option}" for option in parameter.opts if option.startswith("-") or parameter.required)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _options(inner, f"{said} {name}")


def _settings() -> Iterator[str]:
    from eval.settings import EvaluationSettings
    from recsys.config import RunSettings
    from recsys.serving.settings import ServeSettings
    from recsys.uploads.settings import UploadSettings

    for kind in (RunSettings, EvaluationSettings, ServeSettings, UploadSettings):
        yield from _fields(kind, kind.__name__ if kind is not RunSettings else "")


def _fields(kind: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        where = f"{path}.{name}".strip(".")
        yield where
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, where)


def _wire() -> Iterator[str]:
    from recsys.v1 import recommender_pb2 as pb

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        yield from (f"{message.name}.{field.name} = {field.number}" for field in message.fields)
    for service in pb.DESCRIPTOR.services_by_name.values():
        yield from (f"{service.full_name}/{method.name}" for method in service.methods)


def _metrics() -> Iterator[str]:
    from docs.tools.reference_metrics import metrics

    yield from (name for name, *_ in metrics())


def _files(store: Path) -> Iterator[str]:
    for path in store.rglob("*"):
        if path.is_file():
            name = re.sub(r"\d{8}T\d{6}\.\d+Z", "<id>", str(path.relative_to(store)))
            yield re.sub(r"^journal/\d+", "journal/<number>", name)
    for meta in store.glob("generations/*/meta.json"):
        yield from (f"meta.json: {name}" for name in json.loads(meta.read_text(encoding="utf-8")))


def _sql(store: Path) -> Iterator[str]:
    current = (store / "CURRENT").read_text(encoding="utf-8").strip()
    with duckdb.connect(store / "generations" / current / "recommendations.duckdb", read_only=True) as connection:
        columns = "SELECT table_name, column_name, data_type FROM information_schema.columns"
        yield from (" ".join(row) for row in connection.execute(columns).fetchall())


if __name__ == "__main__":
    FILE.write_text(json.dumps(names([Path(name) for name in sys.argv[1:]]), indent=1) + "\n", encoding="utf-8")
