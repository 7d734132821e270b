"""What variety in lists costs: `python -m benchmarks.variety DATA` (tracks.csv, listens.csv, maybe tags.csv).

    warm split (seed 0 or the cut in time), fit  ->  lists under each variety  ->  recall, diversity, artists at 20

Two tables: lists of held-out users, and the one list that somebody unknown gets, held against all these users.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix

from eval.metrics.accuracy import find_hits, recall_at_k
from eval.metrics.beyond_accuracy import ItemFacts, artist_numbers, diversity, n_artists, traits_of
from eval.metrics.panels import panels_of
from eval.splitting.protocols import splits
from eval.splitting.split import SplitSettings
from pipelines.build import Inputs, read_catalogue
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.fit import fit
from recsys.ranking.diversity import ListSettings, Variety
from recsys.recommender import Recommender
from recsys.types import MAX_K, Int32, Tracks
from recsys.util.progress import Bars

K = 20
DIVERSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
CAPS = (None, 2, 1)


def main(data: Annotated[Path, typer.Argument(help="A folder with tracks.csv and listens.csv.")]) -> None:
    """Measure on one split and print."""
    tags = data / "tags.csv"
    read = read_catalogue(
        Inputs(data / "tracks.csv", data / "listens.csv", tags if tags.exists() else None), RunSettings(), Problems()
    )
    if read.listens is None:
        raise typer.BadParameter(f"{data} has no listens")
    tracks = Tracks(read.tracks.frame.sample(fraction=1, shuffle=True, seed=0))
    split = next(splits(read.listens, "warm", SplitSettings(), tracks))
    fitted = fit(tracks, split.train, read.tags, RunSettings(), progress=Bars())
    panel = panels_of(split, fitted.plays, 50_000)[0]
    attributes = traits_of(fitted.plays, split.artists, _seen(fitted))
    artists = artist_numbers(fitted.plays.track_ids, split.artists)
    plain = fitted.rank(panel.user_ids, MAX_K)
    table = Table("list of", "max per artist", "diversity", f"recall@{K}", f"diversity@{K}", f"artists@{K}")
    for cap in CAPS:
        for strength in DIVERSITIES:
            lists = ListSettings(max_per_artist=cap, diversity=strength)
            listed = fitted.ranking.varied(panel.user_rows, plain, lists, artists).items[:, :K]
            _row(table, "each user", lists, listed, panel.held_out, attributes)
    for cap in CAPS:
        for strength in DIVERSITIES:
            nobody = fitted.recommend("somebody unknown", K, max_per_artist=cap or MAX_K, diversity=strength)
            rows = np.array([[fitted.model.items.row(track.track_id) for track in nobody.tracks]], dtype=np.int32)
            same = np.repeat(rows, len(panel.user_rows), axis=0)
            variety = Variety(max_per_artist=cap, diversity=strength)
            _row(table, "somebody unknown", variety, same, panel.held_out, attributes)
    Console(width=120).print(f"{data.name}: {split.note}", table)


def _seen(fitted: Recommender) -> tuple[Int32, np.ndarray]:
    """Vectors by which lists are called diverse: sound, or where there is none content."""
    known = fitted.model.spaces.get("sound") or fitted.model.spaces["content"]
    return known.rows, known.vectors


def _row(
    table: Table, whose: str, variety: Variety, listed: Int32, held_out: csr_matrix, attributes: ItemFacts
) -> None:
    recall = np.nanmean(recall_at_k(find_hits(listed, held_out), K))
    figures = (recall, np.nanmean(diversity(listed, attributes)), np.nanmean(n_artists(listed, attributes)))
    cap = "none" if variety.max_per_artist is None else str(variety.max_per_artist)
    table.add_row(whose, cap, f"{variety.diversity:g}", *(f"{figure:.3f}" for figure in figures))


if __name__ == "__main__":
    typer.run(main)
