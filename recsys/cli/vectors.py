"""``recsys vectors``: what was heard goes from store to store, so that nothing is analysed twice."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import options
from recsys.cli.output import log, log_problems
from recsys.util.progress import Bars

app = typer.Typer(help="Take sound vectors out of a store, or put them into one.", no_args_is_help=True)


@app.command("export")
def export_(store: options.Store, out: options.VectorsOut, network: options.NetworkOut = None) -> None:
    """Write all sound vectors that a store knows to a Parquet file, with their networks and the recordings' hashes."""
    from pipelines.vectors import export_vectors
    from recsys.catalogue.problems import Problems

    problems = Problems()
    found = export_vectors(store, out, network, problems, Bars())
    log_problems(problems.counts(), problems.examples())
    for version, n in found.rows.items():
        current = ", of this store's builds" if version == found.current else ""
        log(f"{n:,} vectors by {version} ({found.networks[version]}{current}) -> {out}")
    if network is not None:
        log(f"the network -> {network}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A Parquet file that an export wrote.")],
    store: options.Store,
    network: options.NetworkIn = None,
) -> None:
    """Put exported sound vectors into a store: the next build with the same network does not make them again."""
    from pipelines.vectors import import_vectors
    from recsys.catalogue.problems import Problems

    problems = Problems()
    found = import_vectors(file, store, network, problems, Bars())
    log_problems(problems.counts(), problems.examples())
    log(f"{found.new.get(found.current or '', 0):,} new vectors by this store's network, {found.known:,} were here")
    for version, n in found.apart.items():
        log(f"{n:,} vectors by {version} are kept apart: {_told(found.current)}", style="yellow")


def _told(current: str | None) -> str:
    if current is None:
        return "the store has no network yet, and only a build whose network has this version takes them"
    return f"this store's network is {current}, and vectors of two networks do not compare"
