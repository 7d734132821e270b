"""The evaluation from listens to files: what reaches the fit, what is judged, what is written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from rich.console import Console

from eval.aggregate import gather, summarise
from eval.judge import Judged, judge
from eval.metrics.panels import held_out_of
from eval.results import FIGURES_SCHEMA, recall_table
from eval.run import evaluate
from eval.settings import EvaluationSettings, evaluation_settings
from eval.splitting.protocols import warm_at_random
from eval.splitting.split import SplitSettings
from helpers.tastes import N_TRACKS, N_USERS, RecordingFit, TasteFake, catalogue, planted, plays_of_fake
from recsys.config import RunSettings
from recsys.errors import ArtefactError, ConfigError, DataError
from recsys.store.generation import Store
from recsys.types import (
    LISTENS_SCHEMA,
    Candidates,
    Listens,
    Tags,
)
from recsys.util.progress import Silent
from recsys.util.settings import Settings

QUICK = EvaluationSettings(
    protocols=("warm", "cold-track"), ks=(3, 10), splits=SplitSettings(n_splits=2), n_resamples=100
)
FILES = ["evaluation.duckdb", "per_user.parquet", "report.html", "report.json"]


def run(out: Path, listens: Listens | None = None, **changes: Any) -> Any:
    given = {"settings": Settings(), "evaluation_settings": QUICK, "fit": RecordingFit()} | changes
    return evaluate(catalogue(), listens or planted(), None, out=out, **given)


def value_of(figures: pl.DataFrame, **key: object) -> float:
    return figures.filter(**{"segment": "all", **key}).select("value").item()


def test_a_planted_taste_is_recovered_and_compared(tmp_path: Path) -> None:
    figures = run(tmp_path).figures
    assert figures.schema == FIGURES_SCHEMA
    assert figures.unique(["model", "split", "segment", "metric", "k"]).height == figures.height
    assert figures["model"].unique(maintain_order=True).to_list() == [
        "random",
        "popularity",
        "hybrid/worst",
        "hybrid",
    ]
    assert set(figures["split"]) == {"warm", "cold-track", "cold-track-among-all"}
    for split, among in (("warm", 40 - 6), ("cold-track", 8), ("cold-track-among-all", 40 - 6)):
        recall = {
            model: value_of(figures, model=model, split=split, metric="recall", k=3)
            for model in figures["model"].unique()
        }
        assert recall["hybrid/worst"] <= recall["random"] < recall["hybrid"], (split, among)
        coverage = value_of(figures, model="random", split=split, metric="coverage", k=10)
        assert 0.5 < coverage <= 1
    is_of_all = pl.col("metric").is_in(["coverage", "gini"])
    with_interval = figures.filter(~is_of_all)
    assert with_interval["ci_low"].is_finite().all()
    assert (with_interval["ci_low"] <= with_interval["value"] + 1e-6).all()
    assert (with_interval["ci_high"] >= with_interval["value"] - 1e-6).all()
    assert figures.filter(is_of_all)["ci_low"].null_count() == figures.filter(is_of_all).height == 2 * 4 * 3 * 2
    assert figures.filter(split="warm", segment="all")["n_users"].unique().to_list() == [N_USERS]
    # among the eight cold tracks every one fits into a list of ten
    assert value_of(figures, model="random", split="cold-track", metric="recall", k=10) == pytest.approx(1)
    assert value_of(figures, model="random", split="cold-track-among-all", metric="recall", k=10) < 0.7


def test_no_held_out_listen_reaches_the_fit(tmp_path: Path) -> None:
    fit, listens = RecordingFit(), planted()
    run(tmp_path, listens, fit=fit)
    assert len(fit.given) == 4  # two protocols, two splits each
    every = set(listens.frame.select("user_id", "track_id").rows())
    for n, train in enumerate(fit.given):
        seen = set(train.frame.select("user_id", "track_id").rows())
        assert seen < every
        if n < 2:
            assert len(seen) == N_USERS * 6  # two of eight are held out
        else:
            assert train.frame["track_id"].n_unique() == round(listens.frame["track_id"].n_unique() * 0.8)


def test_the_order_of_the_catalogue_tells_the_fit_nothing(tmp_path: Path) -> None:
    """A catalogue sorted by popularity would help whatever breaks ties by row."""
    fit = RecordingFit()
    run(tmp_path, fit=fit)
    in_table = catalogue().frame["track_id"].to_list()
    for order in fit.orders:
        assert sorted(order) == sorted(in_table)
        moved = sum(abs(order.index(track) - row) for row, track in enumerate(in_table)) / len(in_table)
        assert moved > len(in_table) / 5


def test_a_cut_in_time_is_one_split(tmp_path: Path) -> None:
    timed = planted().frame.with_columns(
        listened_at=pl.Series(
            [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n * 37 % 96) for n in range(96)]
        ).cast(pl.Datetime("us", "UTC"))
    )
    fit = RecordingFit()
    settings = EvaluationSettings(protocols=("warm",), ks=(5,), splits=SplitSettings(min_user_plays=0))
    evaluation = run(tmp_path, Listens(timed), fit=fit, evaluation_settings=settings)
    assert len(fit.given) == 1
    assert "2024-01-04" in evaluation.about["splits"][0]["note"]
    assert set(evaluation.figures["k"]) == {5}
    assert set(evaluation.figures["split"]) == {"warm"}


def test_new_tracks_after_a_cut_are_ranked_among_themselves_and_among_all(tmp_path: Path) -> None:
    """All are first heard in the order of their numbers, so that the last of them are new."""
    frame = planted(n_users=40).frame
    hour = frame["track_id"].str.slice(1).cast(pl.Int64)
    timed = frame.with_columns(listened_at=datetime(2024, 1, 1, tzinfo=UTC) + pl.duration(hours=hour)).with_columns(
        pl.col("listened_at").cast(pl.Datetime("us", "UTC"))
    )
    parting = SplitSettings(min_user_plays=0, cold_by="time")
    settings = EvaluationSettings(protocols=("cold-track",), ks=(3, 5), splits=parting)
    fit = RecordingFit()
    figures = run(tmp_path, Listens(timed), fit=fit, evaluation_settings=settings).figures
    (train,) = fit.given
    n_new = N_TRACKS - train.frame["track_id"].n_unique()
    assert 4 < n_new < 12
    assert set(figures["split"]) == {"cold-track", "cold-track-among-all"}
    assert "artist-unknown" in set(figures["segment"])
    recall = {
        (row["split"], row["model"]): row["value"]
        for row in figures.filter(metric="recall", segment="all", k=3).iter_rows(named=True)
    }
    assert recall["cold-track", "hybrid"] > recall["cold-track", "random"] > recall["cold-track", "hybrid/worst"]
    assert recall["cold-track", "random"] > 2 * recall["cold-track-among-all", "random"]


def test_cold_by_time_without_times_is_said_before_anything_is_fitted(tmp_path: Path) -> None:
    fit = RecordingFit()
    settings = QUICK.model_copy(update={"splits": SplitSettings(cold_by="time")})
    with pytest.raises(DataError, match="0 of 96 listens say when"):
        run(tmp_path, fit=fit, evaluation_settings=settings)
    assert not fit.given


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_the_files_say_the_same_as_the_evaluation(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "generations" / "gen-7").mkdir(parents=True)
    Store(store).make_current("gen-7")
    evaluation = run(tmp_path / "out", store=store)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    (kept,) = (store / "evaluations").iterdir()
    assert kept.name.endswith("-gen-7.duckdb")
    for path in (tmp_path / "out" / "evaluation.duckdb", kept):
        with duckdb.connect(str(path), read_only=True) as connection:
            assert [row[0] for row in connection.execute("DESCRIBE evaluation").fetchall()] == FIGURES_SCHEMA.names()
            assert connection.execute("FROM evaluation").fetchall() == evaluation.figures.rows()
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f'id="split-{n}"' in page for n in (1, 2, 3))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["figures"] == evaluation.figures.to_dicts()
    assert report["generation"] == "gen-7"
    assert report["formulas"]["recall"].startswith("hits in the top k / min(k,")
    assert set(report["formulas"]) == set(evaluation.figures["metric"])
    assert [split["seed"] for split in report["splits"]] == [0, 1, 0, 1]
    assert set(report["splits"][2]["rank_seconds"]) >= {"cold-track hybrid", "cold-track-among-all random"}
    assert report["settings"]["evaluate"]["ks"] == [3, 10]
    assert {"seconds", "versions", "notes", "counts", "created_at"} <= set(report)


def test_a_second_run_replaces_the_files_and_gives_the_same_figures(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first.figures.equals(second.figures)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_tags_of_listeners_are_noted(tmp_path: Path) -> None:
    tags = Tags(pl.DataFrame([("t1", "calm", 1.0)], schema=["track_id", "tag", "weight"], orient="row"))
    with_tags = evaluate(
        catalogue(),
        planted(),
        tags,
        settings=Settings(),
        evaluation_settings=QUICK,
        out=tmp_path,
        fit=RecordingFit(),
    )
    assert any("tags" in note for note in with_tags.about["notes"])
    assert not any("tags" in note for note in run(tmp_path).about["notes"])


def test_the_table_shows_recall_by_split_and_model(tmp_path: Path) -> None:
    figures = run(tmp_path).figures
    console = Console(width=90, record=True, file=(tmp_path / "screen").open("w"))
    console.print(recall_table(figures))
    console.file.close()
    lines = console.export_text().splitlines()
    (head,) = (line for line in lines if "recall@3" in line)
    assert head.index("recall@3") < head.index("recall@10") < head.index("users")
    assert sum("hybrid/worst" in line for line in lines) == 3
    row = figures.filter(model="hybrid", split="warm", segment="all", metric="recall", k=3).row(0, named=True)
    shown = f"{row['value']:.3f} ±{(row['ci_high'] - row['ci_low']) / 2:.3f}"
    assert any(shown in line and line.rstrip(" │┃").endswith("12") for line in lines)


def test_missing_listens_or_store_are_said_before_anything_is_fitted(tmp_path: Path) -> None:
    fit = RecordingFit()
    given: dict[str, Any] = {
        "settings": Settings(),
        "evaluation_settings": QUICK,
        "out": tmp_path,
        "fit": fit,
    }
    for listens in (None, Listens(pl.DataFrame(schema=LISTENS_SCHEMA))):
        with pytest.raises(DataError, match="no listens, and warm and cold-track need some"):
            evaluate(catalogue(), listens, None, **given)
    with pytest.raises(ArtefactError, match="no published generation"):
        evaluate(catalogue(), planted(), None, store=tmp_path / "nowhere", **given)
    (tmp_path / "CURRENT").write_text("")
    with pytest.raises(ArtefactError, match="which is not there"):
        evaluate(catalogue(), planted(), None, store=tmp_path, **given)
    assert not fit.given


def test_a_folder_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    fit = RecordingFit()
    with pytest.raises(ArtefactError, match="cannot make the folder"):
        run(tmp_path / "out", fit=fit)
    assert not fit.given
    (tmp_path / "dir" / "evaluation.duckdb" / "in the way").mkdir(parents=True)
    with pytest.raises(ArtefactError, match=r"cannot write .*evaluation\.duckdb"):
        run(tmp_path / "dir")
    left = sorted(path.name for path in (tmp_path / "dir").iterdir())
    assert left == ["evaluation.duckdb", "evaluation.partial"]  # what was judged is still there for the next run


def test_settings_put_the_lengths_in_order() -> None:
    assert EvaluationSettings(ks=(20, 5, 5)).ks == (5, 20)
    for wrong in ({"ks": (0, 5)}, {"ks": ()}, {"protocols": ("hot",)}, {"protocols": ()}):
        with pytest.raises(ValidationError):
            EvaluationSettings(**wrong)


def test_settings_are_made_of_a_command_line() -> None:
    made = evaluation_settings(["warm,cold-user", "cold-track"], "20,5", cold_by="artist", n_cuts=3)
    assert made.protocols == ("warm", "cold-user", "cold-track")
    assert (made.ks, made.splits.cold_by, made.splits.n_cuts) == ((5, 20), "artist", 3)
    for wrong in ({"cold_by": "album"}, {"n_cuts": 0}, {"n_cuts": 40}):
        with pytest.raises(ConfigError, match="splits"):
            evaluation_settings(None, "5", **wrong)


def test_held_out_pairs_are_laid_into_the_rows_of_training() -> None:
    split = warm_at_random(planted(), SplitSettings(), seed=2)
    plays = plays_of_fake(split.train, N_TRACKS)
    users, matrix = held_out_of(split, plays)
    pairs = {(plays.user_ids[users[row]], plays.track_ids[item]) for row, item in zip(*matrix.nonzero(), strict=True)}
    assert pairs == set(split.held_out.frame.select("user_id", "track_id").rows())
    assert (np.diff(users) > 0).all()
    others = [f"other {user}" if user == "u3" else user for user in plays.user_ids]
    with pytest.raises(DataError, match="2 of 24 held-out pairs have a user or track"):
        held_out_of(split, replace(plays, user_ids=others))


def test_of_many_users_some_are_drawn() -> None:
    split = warm_at_random(planted(), SplitSettings(), seed=2)
    fitted = TasteFake(plays_of_fake(split.train, N_TRACKS))
    some = judge(fitted, split, (3,), 5, Silent())
    everyone = judge(fitted, split, (3,), 50, Silent())
    assert len(some[0].user_ids) == 5
    assert {tuple(one.user_ids) for one in some} == {tuple(some[0].user_ids)}
    whole = dict(zip(everyone[-1].user_ids, everyone[-1].values[:, 0].tolist(), strict=True))
    assert dict(zip(some[-1].user_ids, some[-1].values[:, 0].tolist(), strict=True)).items() <= whole.items()


def test_a_model_that_returns_short_lists_is_refused() -> None:
    @dataclass(frozen=True)
    class Short(TasteFake):
        def rank(self, user_ids: Sequence[str], k: int, *rest: Any, **named: Any) -> Candidates:
            return TasteFake.rank(self, user_ids, k - 1, *rest, **named)

    split = warm_at_random(planted(), SplitSettings(), seed=2)
    with pytest.raises(DataError, match=r"ranked \(12, 2\), expected \(12, 3\)"):
        judge(Short(plays_of_fake(split.train, N_TRACKS)), split, (3,), 50, Silent())


def test_users_meet_their_own_values_over_splits() -> None:
    def fold(users: list[str], values: list[float], coverage: float) -> Judged:
        table = np.array(values, dtype=np.float32)[:, None]
        return Judged("warm", "m", users, [("all", "recall", 7)], table, {"coverage": [coverage]}, 0.0)

    folds = [fold(["b", "a"], [0.5, 0.1], 0.2), fold(["c", "b"], [0.3, 0.9], 0.4)]
    figures = summarise(gather(folds), (7,), 100, 0)
    recall = figures.filter(metric="recall").row(0, named=True)
    assert recall["value"] == pytest.approx((0.3 + 0.6) / 2)
    assert recall["n_users"] == 3
    assert recall["ci_low"] < recall["value"] < recall["ci_high"]
    assert value_of(figures, metric="coverage") == pytest.approx(0.3)


@pytest.mark.slow
def test_the_engine_itself_recovers_a_planted_taste(tmp_path: Path) -> None:
    """Through ``recsys.fit``: genre tells the taste, so even cold tracks find their listeners."""
    few = {"als": {"epochs": 5}, "lightfm": {"epochs": 10}, "content": {"epochs": 10}}
    settings = RunSettings.model_validate({"hybrid": few})
    parting = SplitSettings(n_splits=1, fold_in_tracks=(1, 3))
    evaluation_settings = EvaluationSettings(ks=(3,), splits=parting, n_resamples=100)
    evaluation = run(
        tmp_path, planted(n_users=50), settings=settings, evaluation_settings=evaluation_settings, fit=None
    )
    recall = {
        (row["split"], row["model"]): row["value"]
        for row in evaluation.figures.filter(metric="recall", segment="all").iter_rows(named=True)
    }
    assert {model for _, model in recall} > {"random", "popularity", "hybrid", "hybrid/als", "hybrid/content"}
    for split in ("warm", "cold-track", "cold-user-1", "cold-user-3"):
        assert recall[split, "hybrid"] > recall[split, "random"] + 0.1, recall
        assert recall[split, "hybrid"] > recall[split, "popularity"] + 0.1, recall
