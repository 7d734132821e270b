from math import log

import numpy as np
import polars as pl
import pytest
import torch

from recsys.content.settings import TaskSettings
from recsys.content.tasks import Heads, Targets, targets_of
from recsys.errors import DataError
from recsys.types import TRACKS_SCHEMA, Tracks

ROWS = [
    ("rock", "Ann"),
    ("rock;folk", "Ann"),
    ("folk", "Bo"),
    ("rock", "Cy"),
    ("", "Ann"),
    ("jazz", None),
    ("rock", "Bo"),
]


def catalogue() -> Tracks:
    columns = {
        "track_id": [str(i) for i in range(len(ROWS))],
        "genres": [genres.split(";") if genres else [] for genres, _ in ROWS],
        "artist": [artist for _, artist in ROWS],
    }
    frame = pl.DataFrame({name: columns.get(name, [None] * len(ROWS)) for name in TRACKS_SCHEMA}, schema=TRACKS_SCHEMA)
    return Tracks(frame)


def targets(**changes: object) -> Targets:
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 7, (7, 3)).astype(np.float32)
    made = targets_of(catalogue(), factors, np.array([5, 0, 1, 20, 0, 0, 3], np.int32))
    return Targets(**{name: changes.get(name, getattr(made, name)) for name in Targets.__dataclass_fields__})


def test_classes_are_those_with_two_tracks_most_frequent_first() -> None:
    made = targets_of(catalogue(), None, None)
    assert made.genre_names == ("rock", "folk")  # jazz has one track
    assert made.genres.tolist() == [[1, 0], [1, 1], [0, 1], [1, 0], [0, 0], [0, 0], [1, 0]]
    assert made.artists.tolist() == [0, 0, 1, -1, 0, -1, 1]  # Ann 3, Bo 2; Cy has one track
    assert made.n_artists == 2
    assert (made.factors.shape, made.factor_weights.tolist()) == ((7, 0), [0] * 7)


def test_classes_are_capped() -> None:
    rows = [*ROWS, ("folk", "Dee"), ("jazz", "Dee")]
    frame = pl.DataFrame(
        {
            "track_id": [str(i) for i in range(9)],
            "genres": [g.split(";") for g, _ in rows],
            "artist": [a for _, a in rows],
        }
    )
    full = pl.DataFrame(schema=TRACKS_SCHEMA)
    made = targets_of(
        Tracks(pl.concat([full, frame], how="diagonal").select(TRACKS_SCHEMA.names())),
        None,
        None,
        TaskSettings(max_genres=2, max_artists=2),
    )
    assert made.genre_names == ("rock", "folk")
    assert made.artists.tolist() == [0, 0, 1, -1, 0, -1, 1, -1, -1]


def test_factors_are_scaled_and_weighted_by_listeners() -> None:
    made = targets()
    heard = made.factors[[0, 2, 3, 6]]
    assert float(np.mean(heard**2)) == pytest.approx(1.0, abs=1e-5)
    assert made.factor_weights.tolist() == pytest.approx([5 / 10, 0, 1 / 6, 20 / 25, 0, 0, 3 / 8])


def test_factors_need_a_row_a_track() -> None:
    with pytest.raises(DataError, match="7 tracks have 6 factors"):
        targets_of(catalogue(), np.zeros((6, 3), np.float32), np.ones(7, np.int32))
    with pytest.raises(DataError, match="none listener counts"):
        targets_of(catalogue(), np.zeros((7, 3), np.float32), None)


def test_costs_worked_by_hand() -> None:
    made = targets()
    heads = Heads(2, made, TaskSettings(genre=1.0, artist=0.5, factors=2.0))
    assert heads.active == ["genre", "artist", "factors"]
    with torch.no_grad():
        for layer in heads.layers.values():
            layer.weight.zero_()
            layer.bias.zero_()
        heads.layers["genre"].bias += torch.tensor([log(3.0), 0.0])  # rock 3/4, folk 1/4
    rows = torch.tensor([1, 4, 3])
    embeddings = torch.randn(3, 2)
    genre = np.mean([-(log(0.75) + log(0.25)) / 2, -log(0.75)]) / log(2)  # track 4 has no genre
    artist = 1.0  # two classes, told apart by nothing; track 3 has none
    factors = float(np.mean(made.factors[3] ** 2))  # tracks 1 and 4 have no listeners
    for tasks, expected in {
        ("genre",): genre,
        ("artist",): 0.5 * artist,
        ("factors",): 2 * factors,
        None: genre + 0.5 * artist + 2 * factors,
    }.items():
        assert float(heads.cost(embeddings, rows, tasks).detach()) == pytest.approx(expected, rel=1e-5)


def test_tasks_without_labels_drop_out() -> None:
    settings = TaskSettings()
    no_genre = targets(genres=np.zeros((7, 2), np.float32))
    no_artist = targets(artists=np.full(7, -1))
    no_factors = targets(factor_weights=np.zeros(7, np.float32))
    assert Heads(4, no_genre, settings).active == ["artist", "factors"]
    assert Heads(4, no_artist, settings).active == ["genre", "factors"]
    assert Heads(4, no_factors, settings).active == ["genre", "artist"]
    assert Heads(4, targets(), TaskSettings(genre=0)).active == ["artist", "factors"]


def test_a_batch_without_labels_costs_nothing_and_has_a_gradient() -> None:
    heads = Heads(4, targets(), TaskSettings())
    embeddings = torch.randn(1, 4, requires_grad=True)
    cost = heads.cost(embeddings, torch.tensor([5]))
    cost.backward()
    assert float(cost.detach()) == 0.0
    assert embeddings.grad is not None
    assert float(embeddings.grad.abs().max()) == 0.0


def test_taking_rows_keeps_classes() -> None:
    taken = targets().take(np.array([6, 0]))
    assert (taken.artists.tolist(), taken.genres.tolist(), len(taken)) == ([1, 0], [[1, 0], [1, 0]], 2)
