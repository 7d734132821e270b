"""Proxy tasks: costs worked by hand, labels that are missing, and each task alone on planted data."""

from math import log

import numpy as np
import polars as pl
import pytest
import torch

from helpers.made import made_tags, made_tracks
from recsys.content.settings import TaskSettings
from recsys.content.targets import Targets, standardised, targets_of
from recsys.content.tasks import Heads
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
        "year": [1980, None, 1990, 2000, None, 1990, None],
    }
    frame = pl.DataFrame({name: columns.get(name, [None] * len(ROWS)) for name in TRACKS_SCHEMA}, schema=TRACKS_SCHEMA)
    return Tracks(frame)


ALL = TaskSettings(genre=1.0, artist=0.5, factors=2.0, tags=3.0, year=4.0, popularity=5.0)
LISTENERS = np.array([5, 0, 1, 20, 0, 0, 3], np.int32)
TAGS = [
    ("0", "live", 2.0),
    ("1", "live", 1.0),
    ("1", "slow", 1.0),
    ("3", "slow", 9.0),
    ("6", "slow", 1.0),
    ("2", "rare", 1.0),
]


def targets(**changes: object) -> Targets:
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 7, (7, 3)).astype(np.float32)
    made = targets_of(catalogue(), factors, LISTENERS, None, made_tags(TAGS))
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


def test_factors_count_by_their_listeners() -> None:
    made = targets()
    heads = Heads(2, made, ALL)
    with torch.no_grad():
        heads.layers["factors"].weight.zero_()
        heads.layers["factors"].bias.zero_()
    errors, weights = (made.factors**2).mean(axis=1)[[0, 3]], np.array([5 / 10, 20 / 25])
    cost = heads.costs(torch.randn(3, 2), torch.tensor([0, 1, 3]))["factors"]
    assert float(cost.detach()) == pytest.approx(float((weights * errors).sum() / weights.sum()), rel=1e-5)


def test_factors_need_a_row_a_track() -> None:
    with pytest.raises(DataError, match="7 tracks have 6 factors"):
        targets_of(catalogue(), np.zeros((6, 3), np.float32), np.ones(7, np.int32))
    with pytest.raises(DataError, match="none listener counts"):
        targets_of(catalogue(), np.zeros((7, 3), np.float32), None)


def test_tags_are_those_of_two_tracks_and_a_track_without_any_is_unknown() -> None:
    made = targets()
    assert made.tag_names == ("slow", "live")  # rare has one track
    assert made.tags.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [0, 0], [0, 0], [1, 0]]
    capped = targets_of(catalogue(), None, None, TaskSettings(max_tags=1), made_tags(TAGS))
    assert capped.tag_names == ("slow",)
    assert targets_of(catalogue(), None, None).tags.shape == (7, 0)


def test_years_and_popularity_are_standardised_over_those_that_have_them() -> None:
    made = targets()
    deviation = np.sqrt(200 / 4)
    expected = np.array([-10, np.nan, 0, 10, np.nan, 0, np.nan]) / deviation
    np.testing.assert_allclose(made.years, expected, rtol=1e-5)
    logs = np.log1p(LISTENERS[LISTENERS > 0])
    np.testing.assert_allclose(made.popularity[LISTENERS > 0], (logs - logs.mean()) / logs.std(), rtol=1e-5)
    assert np.isnan(made.popularity[LISTENERS == 0]).all()
    assert np.isnan(targets_of(catalogue(), None, None).popularity).all()


def test_where_there_are_dislikes_popularity_is_the_share_of_those_who_did_not() -> None:
    dislikers = np.array([5, 0, 0, 2, 1, 0, 0], np.int32)
    made = targets_of(catalogue(), np.ones((7, 2), np.float32), LISTENERS, n_dislikers=dislikers)
    mean = 29 / 37
    shares = (np.array([5, 1, 20, 0, 3]) + 5 * mean) / (np.array([10, 1, 22, 1, 3]) + 5)
    rows = [0, 2, 3, 4, 6]
    np.testing.assert_allclose(made.popularity[rows], (shares - shares.mean()) / shares.std(), rtol=1e-4)
    assert np.isnan(made.popularity[[1, 5]]).all()
    assert made.popularity[0] == made.popularity[rows].min()


def test_standardising_is_bounded_and_needs_two_values() -> None:
    assert np.isnan(standardised(np.array([3.0, np.nan, 3.0]))).all()
    assert np.isnan(standardised(np.full(3, np.nan))).all()
    assert standardised(np.zeros(0)).shape == (0,)
    assert standardised(np.r_[np.zeros(99), 1e9]).max() == 3


def test_targets_are_checked() -> None:
    made = targets()
    with pytest.raises(DataError, match=r"'years': 6"):
        targets(years=made.years[:6])
    with pytest.raises(DataError, match="1 columns for 2 tags"):
        targets(tags=made.tags[:, :1])
    with pytest.raises(DataError, match="7 tracks have 7 listener counts and 2 counts of dislikers"):
        targets_of(catalogue(), None, LISTENERS, n_dislikers=np.ones(2, np.int32))


def test_costs_worked_by_hand() -> None:
    made = targets()
    heads = Heads(2, made, ALL)
    assert heads.active == ["genre", "tags", "artist", "factors", "year", "popularity"]
    with torch.no_grad():
        for layer in heads.layers.values():
            layer.weight.zero_()
            layer.bias.zero_()
        heads.layers["genre"].bias += torch.tensor([log(3.0), 0.0])  # rock 3/4, folk 1/4
        heads.layers["tags"].bias += torch.tensor([0.0, log(3.0)])  # slow 1/2, live 3/4
        heads.layers["year"].bias += 1
    rows = torch.tensor([1, 4, 3])
    embeddings = torch.randn(3, 2)
    genre = np.mean([-(log(0.75) + log(0.25)) / 2, -log(0.75)]) / log(2)  # track 4 has no genre
    artist = 1.0  # two classes, told apart by nothing; track 3 has none
    factors = float(np.mean(made.factors[3] ** 2))  # tracks 1 and 4 have no listeners
    entropy = np.mean([-(0.75 * log(0.75) + 0.25 * log(0.25)), log(2)])  # of slow, 3 in 4, and live, 2 in 4
    tags = np.mean([log(2), -log(0.75), log(2), -log(0.25)]) / entropy  # of tracks 1 and 3
    year = (made.years[3] - 1) ** 2  # tracks 1 and 4 have none
    popularity = made.popularity[3] ** 2
    each = {"genre": genre, "tags": tags, "artist": artist, "factors": factors, "year": year, "popularity": popularity}
    found = heads.costs(embeddings, rows)
    assert list(found) == list(each)
    for task, expected in each.items():
        assert float(found[task].detach()) == pytest.approx(expected, rel=1e-5)
        weighted = getattr(ALL, task) * expected
        assert float(heads.cost(embeddings, rows, [task]).detach()) == pytest.approx(weighted, rel=1e-5)
    total = sum(getattr(ALL, task) * cost for task, cost in each.items())
    assert float(heads.cost(embeddings, rows).detach()) == pytest.approx(total, rel=1e-5)


def test_knowing_nothing_costs_about_one() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    rates = {"a": 0.5, "b": 0.1, "c": 1.0}
    tracks = made_tracks(
        n,
        genres=[[f"g{kind}"] for kind in rng.integers(9, size=n)],
        artist=[f"a{kind}" for kind in rng.integers(50, size=n)],
        year=rng.integers(1950, 2020, n).tolist(),
    )
    tags = [(f"t{row}", name, 1.0) for row in range(n) for name, rate in rates.items() if rng.random() < rate]
    listeners = rng.integers(100, 200, n).astype(np.int32)
    wide = targets_of(tracks, rng.normal(0, 3, (n, 4)).astype(np.float32), listeners, None, made_tags(tags))
    heads = Heads(64, wide, ALL)  # whose random start is then small
    costs = heads.costs(torch.zeros(n, 64), torch.arange(n))
    for task, cost in costs.items():
        assert float(cost.detach()) == pytest.approx(1, abs=0.15), task
    assert float(costs["tags"].detach()) == pytest.approx(1, abs=1e-3)


def none_of(task: str) -> dict[str, object]:
    """The targets' field, with no label of a task."""
    return {
        "genre": {"genres": np.zeros((7, 2), np.float32)},
        "tags": {"tags": np.zeros((7, 2), bool)},
        "artist": {"artists": np.full(7, -1)},
        "factors": {"factor_weights": np.zeros(7, np.float32)},
        "year": {"years": np.full(7, np.nan, np.float32)},
        "popularity": {"popularity": np.full(7, np.nan, np.float32)},
    }[task]


TASKS = ("genre", "tags", "artist", "factors", "year", "popularity")


@pytest.mark.parametrize("task", TASKS)
def test_tasks_without_labels_drop_out(task: str) -> None:
    others = [name for name in TASKS if name != task]
    assert Heads(4, targets(**none_of(task)), ALL).active == others
    assert Heads(4, targets(), ALL.model_copy(update={task: 0.0})).active == others
    assert Heads(4, targets(), ALL).labelled(torch.tensor([4])) == ["artist"]
    assert Heads(4, targets(), ALL).labelled(torch.tensor([4, 5, 3])) == [
        "genre", "tags", "artist", "factors", "year", "popularity",
    ]  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_rows_without_a_label_do_not_count(task: str) -> None:
    heads = Heads(2, targets(), ALL)
    known = [row for row in range(7) if task in heads.labelled(torch.tensor([row]))]
    assert 0 < len(known) < 7
    embeddings = torch.randn(7, 2, requires_grad=True)
    cost = heads.cost(embeddings, torch.arange(7), [task])
    cost.backward()
    alone = heads.cost(embeddings[known], torch.tensor(known), [task])
    assert float(cost.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)
    assert embeddings.grad is not None
    assert embeddings.grad.any(dim=1).nonzero()[:, 0].tolist() == known


def planted(n: int = 90) -> tuple[torch.Tensor, Targets]:
    """Inputs (n, 6) from which every label follows, with some noise."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    inputs = np.eye(6)[kind] + rng.normal(0, 0.2, (n, 6))
    tags = [(f"t{row}", f"tag {kind[row]}", 1.0) for row in range(n)]
    factors = (np.eye(3)[kind] * 5 + rng.normal(0, 0.5, (n, 3))).astype(np.float32)
    tracks = made_tracks(
        n, genres=[[f"g{k}"] for k in kind], artist=[f"a{k}" for k in kind], year=(1970 + 15 * kind).tolist()
    )
    listeners = (3 ** (kind + 1)).astype(np.int32)
    return torch.from_numpy(inputs.astype(np.float32)), targets_of(tracks, factors, listeners, None, made_tags(tags))


@pytest.mark.parametrize("task", TASKS)
def test_each_task_alone_lowers_its_own_held_out_cost(task: str) -> None:
    torch.manual_seed(0)
    inputs, made = planted()
    alone = TaskSettings(**{**dict.fromkeys(TASKS, 0.0), task: 1.0})
    heads = Heads(5, made, alone)
    assert heads.active == [task]
    network = torch.nn.Linear(6, 5)
    optimizer = torch.optim.Adam([*network.parameters(), *heads.parameters()], lr=0.03)
    training, held_out = torch.arange(60), torch.arange(60, 90)

    def cost(rows: torch.Tensor) -> torch.Tensor:
        return heads.cost(network(inputs[rows]), rows)

    before = float(cost(held_out).detach())
    for _ in range(150):
        optimizer.zero_grad()
        cost(training).backward()
        optimizer.step()
    assert float(cost(held_out).detach()) < 0.4 * before


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
    assert (taken.tags.tolist(), taken.tag_names) == ([[1, 0], [0, 1]], ("slow", "live"))
    assert np.isnan(taken.years).tolist() == [True, False]
    assert taken.popularity[1] == targets().popularity[0]
    assert taken.n_artists == 2
