"""The hybrid without a modality: what is taken out, when it is fitted, what is kept and reported of it."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from eval.run import evaluate
from eval.settings import EvaluationSettings, evaluation_settings
from eval.splitting.ablations import MODALITIES, present, without
from eval.splitting.split import SplitSettings
from helpers.command import run as command
from helpers.tastes import RecordingFit, TasteFake, catalogue, planted
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.types import TAGS_SCHEMA, TRACKS_SCHEMA, Candidates, Listens, Tags, Tracks
from recsys.util.settings import Settings

TAGS = Tags(pl.DataFrame([("t1", "calm", 1.0)], schema=TAGS_SCHEMA, orient="row"))
QUICK = EvaluationSettings(
    protocols=("warm", "cold-track", "cold-user"),
    ks=(3, 10),
    splits=SplitSettings(n_splits=2, fold_in_tracks=(1, 3)),
    n_resamples=100,
    ablations=True,
)


def full() -> Tracks:
    row = ("t1", "/a.mp3", "title", "ann", "album", ["pop"], 1999, "la la", [0.5, 1.0])
    bare = ("t0", None, "other", None, None, [], None, None, None)
    return Tracks(pl.DataFrame([row, bare], schema=TRACKS_SCHEMA, orient="row"))


class Knowing(RecordingFit):
    """Knows the taste as long as it is told the genre, as a real one would among cold tracks."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, bool]] = []

    def __call__(self, tracks: Tracks, listens: Listens, tags: Tags | None, *rest: Any, **named: Any) -> TasteFake:
        n_genres = tracks.frame["genres"].list.len().sum()
        self.told.append((int(n_genres), tags is not None))
        fitted = super().__call__(tracks, listens, tags, *rest, **named)
        return fitted if n_genres else Blind(fitted.plays)


class Blind(TasteFake):
    """Ranks the wrong taste first."""

    def rank_folded(self, *given: Any, **named: Any) -> Candidates:
        return TasteFake.rank_folded(self, *given, **named | {"part": "worst"})


def run(out: Path, fit: Any, tracks: Tracks | None = None, **changes: Any) -> Any:
    given = {"settings": Settings(), "evaluation_settings": QUICK, "out": out, "fit": fit} | changes
    return evaluate(tracks or catalogue(), planted(), TAGS, **given)


@pytest.mark.parametrize(
    ("modality", "emptied"),
    [
        ("sound", {"path", "vector"}),
        ("lyrics", {"lyrics"}),
        ("tags", {"genres"}),
        ("artist", {"artist", "album"}),
        ("year", {"year"}),
    ],
)
def test_one_modality_is_taken_out_and_nothing_else(modality: Any, emptied: set[str]) -> None:
    before = full()
    after, tags = without(before, TAGS, modality)
    assert tags is (None if modality == "tags" else TAGS)
    for name in TRACKS_SCHEMA.names():
        if name in emptied:
            assert after.frame[name].to_list() == ([[], []] if name == "genres" else [None, None])
        else:
            assert after.frame[name].equals(before.frame[name])
    assert present(after, tags) == [other for other in MODALITIES if other != modality]
    assert before.frame.equals(full().frame)


def test_what_no_track_has_is_not_present() -> None:
    assert present(full(), None) == list(MODALITIES)
    bare = Tracks(full().frame.tail(1))
    assert present(bare, None) == []
    assert present(bare, TAGS) == ["tags"]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_the_hybrid_is_fitted_again_without_what_there_is(tmp_path: Path) -> None:
    fit = Knowing()
    evaluation = run(tmp_path, fit)
    assert fit.told == [(40, True), (0, False)] * 6  # three protocols, two splits: the whole, then without tags
    for whole, lacking in zip(fit.given[::2], fit.given[1::2], strict=True):
        assert whole.frame.equals(lacking.frame)
    assert fit.orders[0::2] == fit.orders[1::2]
    figures = evaluation.figures
    for split in set(figures["split"]):
        recall = figures.filter(split=split, metric="recall", segment="all", k=3)
        value = dict(recall.select("model", "value").rows())
        assert value["hybrid-without-tags"] < value["hybrid"]
        (test,) = (
            one for one in evaluation.about["tests"] if (one["split"], one["model"]) == (split, "hybrid-without-tags")
        )
        assert not test["is_baseline"]
        assert test["ci_low"] <= test["difference"] <= test["ci_high"]
    lacking = figures.filter(model="hybrid-without-tags")
    assert "diversity" not in set(lacking["metric"])  # of other sound vectors than those of the hybrid
    assert {"recall", "novelty", "coverage"} <= set(lacking["metric"])
    assert [set(split["without"]) for split in evaluation.about["splits"]] == [{"tags"}] * 6
    assert any("hybrid-without-" in note for note in evaluation.about["notes"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert {one["model"] for one in report["tests"]} == {"random", "popularity", "hybrid/worst", "hybrid-without-tags"}
    with duckdb.connect(str(tmp_path / "evaluation.duckdb"), read_only=True) as connection:
        (n,) = connection.execute("SELECT count(*) FROM evaluation WHERE model = 'hybrid-without-tags'").fetchone()
    assert n == lacking.height
    page = (tmp_path / "report.html").read_text()
    assert "What each modality adds" in page


def test_a_fit_without_a_modality_is_checked_for_leaks_too(tmp_path: Path) -> None:
    class Leaking(RecordingFit):
        def __call__(self, tracks: Tracks, listens: Listens, tags: Tags | None, *rest: Any, **named: Any) -> TasteFake:
            seen = listens if tags is not None else planted()
            return super().__call__(tracks, seen, tags, *rest, **named)

    with pytest.raises(DataError, match="beyond the training listens of warm"):
        run(tmp_path, Leaking())


@pytest.mark.slow
def test_it_is_off_unless_asked_for_and_then_only_adds(tmp_path: Path) -> None:
    usual, more = Knowing(), Knowing()
    off = run(tmp_path / "off", usual, evaluation_settings=QUICK.model_copy(update={"ablations": False}))
    on = run(tmp_path / "on", more)
    assert (len(usual.given), len(more.given)) == (6, 12)
    assert "hybrid-without-tags" not in set(off.figures["model"])
    assert on.figures.filter(pl.col("model") != "hybrid-without-tags").equals(off.figures)
    assert not EvaluationSettings().ablations
    assert evaluation_settings(None, "5", ablations=True).ablations


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_the_page_of_a_run_without_them_does_not_speak_of_them(tmp_path: Path) -> None:
    run(tmp_path, Knowing(), evaluation_settings=QUICK.model_copy(update={"ablations": False, "protocols": ("warm",)}))
    page = (tmp_path / "report.html").read_text()
    assert "Recall" in page
    assert "What each modality adds" not in page


@pytest.mark.parametrize("n_before", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_a_run_that_was_killed_between_two_fits_goes_on(tmp_path: Path, n_before: int) -> None:
    class Killed(Knowing):
        def __call__(self, *given: Any, **named: Any) -> TasteFake:
            if len(self.given) == n_before:
                raise KeyboardInterrupt
            return super().__call__(*given, **named)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Killed())
    kept = {path.name for path in (tmp_path / "killed" / "evaluation.partial").rglob("*.npz")}
    assert kept == set(["warm-0.npz", "warm-0-hybrid-without-tags.npz", "warm-1.npz"][:n_before])
    rest, whole = Knowing(), Knowing()
    resumed, fresh = run(tmp_path / "killed", rest), run(tmp_path / "fresh", whole)
    assert len(rest.given) == len(whole.given) - n_before
    assert resumed.figures.equals(fresh.figures)
    assert resumed.about["tests"] == fresh.about["tests"]


@pytest.mark.slow
def test_the_engine_itself_misses_the_genre(tmp_path: Path) -> None:
    """Through ``recsys.fit``: genre alone tells the taste of a cold track, the year says nothing."""
    years = pl.Series("year", np.random.default_rng(3).integers(1960, 2020, 40), TRACKS_SCHEMA["year"])
    tracks = Tracks(catalogue().frame.with_columns(years))
    few = {"als": {"epochs": 5}, "lightfm": {"epochs": 10}, "content": {"epochs": 10}}
    given = RunSettings.model_validate({"hybrid": few})
    parting = SplitSettings(n_splits=1)
    chosen = QUICK.model_copy(update={"protocols": ("cold-track",), "splits": parting, "ks": (3,)})
    evaluation = evaluate(tracks, planted(n_users=50), None, settings=given, evaluation_settings=chosen, out=tmp_path)
    added = {one["model"]: one["difference"] for one in evaluation.about["tests"] if one["split"] == "cold-track"}
    assert set(added) > {"hybrid-without-tags", "hybrid-without-year"}
    assert added["hybrid-without-tags"] > 0.15
    assert added["hybrid-without-tags"] > added["hybrid-without-year"] + 0.1


def test_the_command_line_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[EvaluationSettings] = []

    def stop(inputs: Any, settings: Any, chosen: EvaluationSettings, *rest: Any) -> None:
        asked.append(chosen)
        raise DataError("seen enough")

    monkeypatch.setattr("pipelines.evaluate.evaluate_files", stop)
    given = ("evaluate", "--tracks", tmp_path / "t.csv", "--out", tmp_path, "--cold-by", "time", "--cuts", "2")
    assert "seen enough" in command(*given, "--ablations").err
    assert "seen enough" in command(*given).err
    assert [one.ablations for one in asked] == [True, False]
    assert {(one.splits.cold_by, one.splits.n_cuts) for one in asked} == {("time", 2)}
