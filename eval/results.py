"""What an evaluation leaves behind: a table of figures, as DuckDB, as JSON and on the screen.

    Evaluation(figures, about, per_user)  ->  report.json, evaluation.duckdb, per_user.parquet, recall_table

The table ``evaluation`` has these columns: model, split, segment, metric, k, value, ci_low, ci_high, n_users;
the interval is null where the figure is no mean over users. Every file is written beside its place, then
renamed, so what has the right name is whole. How figures come about is in ``eval.judge``.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.errors import ArtefactError, DataError
from recsys.util.files import replace

FIGURES_SCHEMA = pl.Schema(
    {
        "model": pl.String(),
        "split": pl.String(),
        "segment": pl.String(),
        "metric": pl.String(),
        "k": pl.Int32(),
        "value": pl.Float64(),
        "ci_low": pl.Float64(),
        "ci_high": pl.Float64(),
        "n_users": pl.Int64(),
    }
)
_DUCKDB_TYPES = {pl.String: "VARCHAR", pl.Int32: "INTEGER", pl.Int64: "BIGINT", pl.Float64: "DOUBLE"}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The figures in ``FIGURES_SCHEMA``, and what else a reader needs: settings, formulas, notes, seconds.

    ``about`` holds what ``json`` can write. ``per_user`` has each user's recall by split and model (user_id, split,
    model, recall@k); None where no listens were held out.
    """

    figures: pl.DataFrame
    about: dict[str, Any]
    per_user: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        """Check the columns."""
        if self.figures.schema != FIGURES_SCHEMA:
            raise DataError(f"figures are {dict(self.figures.schema)}, expected {dict(FIGURES_SCHEMA)}")


def make_folder(folder: Path) -> None:
    """Make a folder if there is none.

    Raises:
        ArtefactError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(f"cannot make the folder {folder} ({error!r}); give another one") from error


def save(evaluation: Evaluation, out: Path) -> None:
    """Write ``report.json``, ``evaluation.duckdb`` and ``per_user.parquet`` into the folder ``out``.

    Raises:
        ArtefactError: the folder cannot be written.
    """
    write_database(evaluation.figures, out / "evaluation.duckdb")
    if evaluation.per_user is None:
        (out / "per_user.parquet").unlink(missing_ok=True)  # an earlier evaluation's
    else:
        write_beside(out / "per_user.parquet", evaluation.per_user.write_parquet)
    rows = [{name: _finite(value) for name, value in row.items()} for row in evaluation.figures.to_dicts()]
    text = json.dumps({**evaluation.about, "figures": rows}, indent=1, allow_nan=False)
    write_beside(out / "report.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))


def save_to_store(evaluation: Evaluation, store: Path, generation: str) -> Path:
    """Write the figures as a new file under ``store/evaluations``; the generation itself is never written.

    Returns:
        The file, ``<UTC time>-<generation>.duckdb``.
    """
    path = store / "evaluations" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{generation}.duckdb"
    write_database(evaluation.figures, path)
    return path


def write_database(figures: pl.DataFrame, path: Path) -> None:
    """Write the table ``evaluation`` as a DuckDB file.

    Raises:
        ArtefactError: the file cannot be written.
    """
    columns = ", ".join(f"{name} {_DUCKDB_TYPES[type(kind)]}" for name, kind in FIGURES_SCHEMA.items())

    def write(beside: Path) -> None:
        shard = beside.with_name(f"{beside.name}.parquet")  # row by row it would take a minute for 20,000 figures
        try:
            figures.write_parquet(shard)
            with duckdb.connect(str(beside)) as connection:
                connection.execute(f"CREATE TABLE evaluation ({columns})")
                rows = "read_parquet(?, hive_partitioning = false)"  # a folder named key=value is no column
                connection.execute(f"INSERT INTO evaluation BY NAME SELECT * FROM {rows}", [str(shard)])
        finally:
            for left in (shard, beside.with_name(f"{beside.name}.wal")):
                left.unlink(missing_ok=True)

    write_beside(path, write)


def recall_table(figures: pl.DataFrame) -> Table:
    """Lay out recall@k by model under each split, with half the width of its 95 % interval."""
    recall = figures.filter((pl.col("metric") == "recall") & (pl.col("segment") == "all"))
    ks = recall["k"].unique().sort().to_list()
    table = Table(caption="± half of the 95 % interval over users; heard tracks are left out of every list")
    table.add_column("model")
    for k in ks:
        table.add_column(f"recall@{k}", justify="right")
    table.add_column("users", justify="right")
    for (split,), rows in recall.group_by("split", maintain_order=True):
        table.add_row(Text(str(split), style="bold"))
        for (model,), of_model in rows.group_by("model", maintain_order=True):
            by_k = {row["k"]: row for row in of_model.to_dicts()}
            n_users = int(of_model["n_users"][0])
            table.add_row(Text(f"  {model}"), *(_cell(by_k.get(k)) for k in ks), f"{n_users:,}")
        table.add_section()
    return table


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    half = (row["ci_high"] - row["ci_low"]) / 2
    return f"{row['value']:.3f} ±{half:.3f}"


def _finite(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it when it is whole and on the disk.

    Raises:
        ArtefactError: it cannot be written.
    """
    make_folder(path.parent)
    try:
        replace(path, write)
    except (OSError, duckdb.IOException) as error:
        raise ArtefactError(f"cannot write {path} ({error!r}); give a folder with room and rights") from error
