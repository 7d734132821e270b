"""What lists that follow the listener find when they are served: plays after a cut, told one by one to a live store.

    python -m benchmarks.follow --tracks tracks.csv --listens listens.csv  ->  hit@20 and MRR@200 of the list before
    each first play of a track: as it is then, and as the build stored it

A build knows the plays before the cut. The clock of the live store stands at each event, so that sessions go on and end
as they did. ``recsys evaluate --protocol live`` asks the same of all tracks at each event, without a store.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from pipelines.build import Inputs, read_catalogue
from pipelines.publish import publish
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.eventlog.events import Listened
from recsys.fit import fit
from recsys.live.service import LiveUpdater
from recsys.recommender import Recommender, open_store
from recsys.store.generation import Store
from recsys.store.record import Record
from recsys.types import DEFAULT_K, MAX_K, Listens
from recsys.util.progress import Bars, Progress

app = typer.Typer()


@dataclass
class Found:
    """Of some events: ``places`` of the track in the list of the moment and in the stored one, from 0; -1 where not."""

    places: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)


@dataclass
class Measured:
    """What was found by whether the track had been played before the cut, and seconds of each acknowledgement."""

    played: Found = field(default_factory=Found)
    unplayed: Found = field(default_factory=Found)
    seconds: list[float] = field(default_factory=list)


def measure(
    inputs: Inputs, days: float, n_users: int, settings: RunSettings, folder: Path, progress: Progress
) -> Measured:
    """Build from the plays before the last ``days``, tell those of ``n_users`` users after it, drawn at random.

    Raises:
        DataError: no time is known, or none of the plays comes before or after the cut.
    """
    catalogue = read_catalogue(inputs, settings, Problems())
    before, after = _cut(catalogue.listens, days)
    recommender = fit(catalogue.tracks, Listens(before), None, settings, progress=progress)
    store = Store(folder)
    publish(recommender, store, settings, {}, Problems(), 0, progress)
    users = after["user_id"].unique(maintain_order=True)
    drawn = np.random.default_rng(settings.seed).permutation(len(users))[:n_users]
    told = after.filter(pl.col("user_id").is_in(users[drawn].implode()))
    return _replayed(store, before, told, progress)


def _cut(listens: Listens | None, days: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Plays before and after the cut, the later ones in their order; plays without a time are before it."""
    plays = None if listens is None else listens.frame.filter(pl.col("plays") > 0)
    if plays is None or plays["listened_at"].drop_nulls().is_empty():
        raise DataError("no play has a time, expected listens with listened_at")
    last = plays["listened_at"].max()
    assert isinstance(last, datetime)
    is_later = (pl.col("listened_at") > last - timedelta(days=days)).fill_null(value=False)
    before, after = plays.filter(~is_later), plays.filter(is_later).sort("listened_at", maintain_order=True)
    if before.is_empty():
        raise DataError(f"all plays are of the last {days:g} days; give a smaller number of days")
    return before, after


def _replayed(store: Store, before: pl.DataFrame, told: pl.DataFrame, progress: Progress) -> Measured:
    measured, known = Measured(), _heard(before)
    was_played = set(before["track_id"])
    now = [0.0]
    with closing(open_store(store.folder, "lmdb")) as recommender, _live(store, recommender, lambda: now[0]) as live:
        stored: dict[str, list[str]] = {}
        with progress.bar("events", len(told), "events") as bar:
            for user, track, at in told.select("user_id", "track_id", "listened_at").iter_rows():
                now[0] = at.timestamp()
                heard = known.setdefault(user, set())
                if heard and track not in heard:
                    if user not in stored:
                        stored[user] = [one.track_id for one in recommender.recommend(user, MAX_K).tracks]
                    live.refresh(user)
                    record = live.list_of(user)
                    of_now = stored[user] if record is None else [line[0] for line in Record(record).found()]
                    left = [one for one in stored[user] if one not in heard]
                    found = measured.played if track in was_played else measured.unplayed
                    found.places.append(of_now.index(track) if track in of_now else -1)
                    found.stored.append(left.index(track) if track in left else -1)
                start = perf_counter()
                live.record([Listened(user, track, at=at.isoformat())])
                measured.seconds.append(perf_counter() - start)
                heard.add(track)
                bar.advance()
    return measured


def _live(store: Store, recommender: Recommender, clock: Callable[[], float]) -> "closing[LiveUpdater]":
    return closing(LiveUpdater(store, recommender, clock))


def _heard(plays: pl.DataFrame) -> dict[str, set[str]]:
    grouped = plays.group_by("user_id").agg(pl.col("track_id").unique())
    return {user: set(tracks) for user, tracks in grouped.iter_rows()}


def lines(measured: Measured) -> Iterator[tuple[str, ...]]:
    """Rows of the table: which tracks, how many events, hit@20 and MRR@200 of the list of now and of the stored one."""
    played, unplayed = measured.played, measured.unplayed
    both = Found(played.places + unplayed.places, played.stored + unplayed.stored)
    for name, found in (("played", played), ("unplayed", unplayed), ("both", both)):
        figures = [_figures(found.places), _figures(found.stored)]
        yield name, f"{len(found.places):,}", *(f"{hit:.3f}, {rank:.3f}" for hit, rank in figures)


def _figures(places: list[int]) -> tuple[float, float]:
    """hit@20 and MRR of places, -1 where there is none."""
    if not places:
        return float("nan"), float("nan")
    found = np.array([place for place in places if place >= 0], dtype=float)
    return float((found < DEFAULT_K).sum() / len(places)), float((1 / (found + 1)).sum() / len(places))


@app.command()
def main(
    tracks: Annotated[Path, typer.Option(help="The catalogue.")],
    listens: Annotated[Path, typer.Option(help="Who listened to what, with times.")],
    days: Annotated[float, typer.Option(help="The last days, whose plays are told.", min=0.01)] = 2.0,
    users: Annotated[int, typer.Option(help="Users whose plays are told, at most.", min=1)] = 400,
) -> None:
    """Print what the lists find."""
    with TemporaryDirectory() as folder:
        inputs = Inputs(tracks, listens)
        measured = measure(inputs, days, users, RunSettings(), Path(folder) / "store", Bars())
    shown = Table("tracks", "events", "hit@20, MRR@200 of now", "of the stored list")
    for row in lines(measured):
        shown.add_row(*row)
    console = Console()
    console.print(shown)
    median, late = (1e3 * float(np.quantile(measured.seconds, q)) for q in (0.5, 0.95))
    console.print(f"a play is acknowledged, with its list, in {median:.1f} ms (median), {late:.1f} ms (95 % within)")


if __name__ == "__main__":
    app()
