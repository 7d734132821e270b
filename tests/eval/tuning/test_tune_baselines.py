"""Tuning of peers: the same number of trials for each, nothing held out is seen, a kill costs nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from eval.baselines.base import Baseline, Choice, Number, Params
from eval.baselines.features import BaselineData
from eval.baselines.registry import BASELINES
from eval.baselines.simple import Ranker
from eval.metrics.panels import held_out_of
from eval.splitting import protocols as parting
from eval.splitting.protocols import splits
from eval.splitting.split import Protocol, Split, SplitSettings
from eval.tuning import trials as trying
from eval.tuning import tune_baselines
from eval.tuning.trials import Trial, Trials, fingerprint
from eval.tuning.tune_baselines import BaselineSettings, Tuned, TunedBaselines, tuned_baselines
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import LISTENS_SCHEMA, TRACKS_SCHEMA, Listens, Plays, Tracks
from recsys.util.progress import Silent

N_USERS, N_ITEMS = 40, 30
CHEAP = ("knn-cosine", "artist-popularity", "content-profile")


@dataclass
class Fitted:
    """A fit that knows its plays and nothing else."""

    plays: Plays
    parts: tuple[str, ...] = ()

    def rank(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("peers do not ask the hybrid")


@dataclass
class Heard(Silent):
    """Remembers what is said."""

    said: list[str] = field(default_factory=list)

    def detail(self, line: str) -> None:
        self.said.append(line)


def some_tracks() -> Tracks:
    frame = pl.DataFrame(
        {"track_id": [f"t{n}" for n in range(N_ITEMS)], "artist": [f"a{n % 6}" for n in range(N_ITEMS)]}
    )
    missing = {name: pl.lit(None, dtype) for name, dtype in TRACKS_SCHEMA.items() if name not in frame.columns}
    missing["genres"] = pl.lit([], TRACKS_SCHEMA["genres"])
    return Tracks(frame.with_columns(**missing).select(TRACKS_SCHEMA.names()).cast(dict(TRACKS_SCHEMA)))


def some_listens() -> Listens:
    rng = np.random.default_rng(2)
    rows = [
        {"user_id": f"u{user}", "track_id": f"t{item}", "plays": float(rng.integers(1, 5)), "disliked": False}
        for user in range(N_USERS)
        for item in rng.choice(np.flatnonzero(np.arange(N_ITEMS) % 3 == user % 3), size=8, replace=False)
    ]
    return Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA))


TRACKS, LISTENS = some_tracks(), some_listens()
IDS = TRACKS.frame["track_id"].to_list()[::-1]


def split_of(protocol: Protocol, seed: int = 0) -> Split:
    return next(splits(LISTENS, protocol, SplitSettings(seed=seed), TRACKS))


def fitted_to(split: Split) -> Fitted:
    return Fitted(plays_of(split.train, IDS))


def prepared(folder: Path, **given: Any) -> TunedBaselines:
    settings = BaselineSettings.model_validate({"trials": 4, "models": CHEAP, "k": 5, **given})
    return tuned_baselines(TRACKS, None, settings, folder, Heard())


def run(baselines: TunedBaselines, split: Split) -> tuple[dict[str, Ranker], list[Tuned]]:
    found = dict(baselines(fitted_to(split), split))
    return found, baselines.reports


def lines(folder: Path) -> list[dict[str, Any]]:
    [file] = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def stand_ins(monkeypatch: pytest.MonkeyPatch, fit: Callable[[Baseline, BaselineData, Params, int], Ranker]) -> None:
    """Put something between tuning and the fits of its peers."""
    watched = [replace(p, fit=lambda *given, p=p: fit(p, *given)) for p in BASELINES]
    monkeypatch.setattr(tune_baselines, "BASELINES", tuple(watched))


def test_every_model_has_its_trials_and_the_best_is_taken(tmp_path: Path) -> None:
    found, reports = run(prepared(tmp_path), split_of("warm"))
    assert list(found) == [report.model for report in reports] == ["knn-cosine", "artist-popularity", "content-profile"]
    by_model: dict[str, list[dict[str, Any]]] = {}
    for line in lines(tmp_path):
        by_model.setdefault(line["model"], []).append(line)
    for report in reports:
        tried = by_model[report.model]
        assert (report.status, report.n_trials, len(tried)) == ("tuned", 4, 4)
        assert tried[0]["params"] == next(p for p in BASELINES if p.name == report.model).defaults
        assert report.value == max(line["value"] for line in tried) > 0
        assert report.params in [line["params"] for line in tried if line["value"] == report.value]
    assert len({json.dumps(line["params"]) for line in by_model["content-profile"]}) == 4


def test_the_last_fit_is_of_all_training_plays_with_the_best_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, Params]] = []

    def watch(baseline: Baseline, material: BaselineData, params: Params, seed: int) -> Ranker:
        seen.append((material.plays.counts.nnz, params))
        return baseline.fit(material, params, seed)

    stand_ins(monkeypatch, watch)
    split = split_of("warm")
    _, [report] = run(prepared(tmp_path, models=("content-profile",)), split)
    assert seen[-1] == (fitted_to(split).plays.counts.nnz, report.params)
    assert all(n_pairs < seen[-1][0] for n_pairs, _ in seen[:-1])


@pytest.mark.parametrize("protocol", ["warm", "cold-track"])
def test_nothing_held_out_reaches_a_trial_or_its_judge(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(protocol)
    user_rows, held_out = held_out_of(split, fitted_to(split).plays)
    ids = fitted_to(split).plays.user_ids
    closed = {(ids[user_rows[row]], IDS[item]) for row, item in zip(*held_out.nonzero(), strict=True)}
    seen: set[tuple[str, str]] = set()

    def watch(baseline: Baseline, material: BaselineData, params: Params, seed: int) -> Ranker:
        plays = material.plays
        seen.update((plays.user_ids[u], plays.track_ids[i]) for u, i in zip(*plays.counts.nonzero(), strict=True))
        return baseline.fit(material, params, seed)

    judged: set[tuple[str, str]] = set()
    real = trying.Validation.recall

    def recall(self: trying.Validation, ranker: Ranker) -> float:
        plays = self.material.plays
        pairs = {
            (plays.user_ids[self.panel.user_rows[u]], plays.track_ids[i])
            for u, i in zip(*self.panel.held_out.nonzero(), strict=True)
        }
        own = {(plays.user_ids[u], plays.track_ids[i]) for u, i in zip(*plays.counts.nonzero(), strict=True)}
        assert pairs
        assert not pairs & own
        judged.update(pairs)
        return real(self, ranker)

    stand_ins(monkeypatch, watch)
    monkeypatch.setattr(trying.Validation, "recall", recall)
    run(prepared(tmp_path, trials=2), split)
    assert seen
    assert judged
    assert not closed & (seen | judged)


def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, given = split_of("cold-track"), {"trials": 6, "models": ("content-profile",)}
    whole, reports = run(prepared(tmp_path / "whole", **given), split)
    fits = 0

    def dies(baseline: Baseline, material: BaselineData, params: Params, seed: int) -> Ranker:
        nonlocal fits
        fits += 1
        if fits == 4:
            raise KeyboardInterrupt
        return baseline.fit(material, params, seed)

    stand_ins(monkeypatch, dies)
    with pytest.raises(KeyboardInterrupt):
        run(prepared(tmp_path / "killed", **given), split)
    [file] = (tmp_path / "killed").glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 3
    with file.open("a") as torn:
        torn.write('{"model": "content-pro')
    fits = 100
    again, reports_again = run(prepared(tmp_path / "killed", **given), split)
    assert fits == 100 + 3 + 1  # the trials that were left, and the last fit
    tried, tried_again = ([(t["params"], t["value"]) for t in lines(tmp_path / f)] for f in ("whole", "killed"))
    assert tried == tried_again
    assert [(r.params, r.value, r.status) for r in reports] == [(r.params, r.value, r.status) for r in reports_again]
    users = np.arange(N_USERS, dtype=np.int32)
    for name, ranker in whole.items():
        assert (ranker.rank(users, 5).items == again[name].rank(users, 5).items).all()


def test_trials_of_other_listens_or_settings_are_not_taken(tmp_path: Path) -> None:
    split = split_of("warm")
    run(prepared(tmp_path), split)
    run(prepared(tmp_path, k=4), split)
    other = replace(split, train=Listens(split.train.frame.with_columns(pl.col("plays") + 1)))
    run(prepared(tmp_path), other)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    run(prepared(tmp_path, trials=5), split)  # more trials go on where fewer ended
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_trials_of_another_cut_in_time_are_not_taken(tmp_path: Path) -> None:
    """The same plays at other times: training plays as a whole are the same, their validation part is not."""
    order = np.random.default_rng(5).permutation(len(LISTENS))
    for n, places in enumerate((order, np.roll(order, 7))):
        frame = LISTENS.frame.with_columns(
            listened_at=pl.Series(1_000_000 * places.astype(np.int64)).cast(LISTENS_SCHEMA["listened_at"])
        )
        cut = 280
        split = replace(
            split_of("warm"),
            train=Listens(LISTENS.frame.head(cut).with_columns(frame["listened_at"].head(cut))),
            cut_at=datetime(2000, 1, 1, tzinfo=UTC),
        )
        run(prepared(tmp_path, models=("artist-popularity",)), split)
        assert len(list(tmp_path.glob("*.jsonl"))) == n + 1


def test_a_spent_budget_lists_what_did_not_finish(tmp_path: Path) -> None:
    found, reports = run(prepared(tmp_path, time_budget_s=1e-9), split_of("warm"))
    assert found == {}
    assert [report.model for report in reports] == list(prepared(tmp_path).settings.models)
    assert all("did not finish" in report.status and not report.has_lists for report in reports)


def test_each_model_has_a_fair_share_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now

    def slow(baseline: Baseline, material: BaselineData, params: Params, seed: int) -> Ranker:
        nonlocal now
        now += 10.0 if baseline.name == "knn-cosine" else 1.0
        return baseline.fit(material, params, seed)

    monkeypatch.setattr(tune_baselines, "time", Clock)
    monkeypatch.setattr(trying, "time", Clock)
    stand_ins(monkeypatch, slow)
    _, reports = run(
        prepared(tmp_path, trials=8, time_budget_s=120, models=("knn-cosine", "content-profile")), split_of("warm")
    )
    cosine, profile = reports
    assert (cosine.status, cosine.n_trials) == ("5 of 8 trials in its share of the time", 5)
    assert (profile.status, profile.n_trials) == ("tuned", 8)
    assert cosine.has_lists
    assert now <= 120


def test_cold_tracks_are_ranked_only_by_models_that_can(tmp_path: Path) -> None:
    baselines = prepared(tmp_path)
    found, reports = run(baselines, split_of("cold-track"))
    assert list(found) == ["artist-popularity", "content-profile"]
    [left] = [report for report in reports if not report.has_lists]
    assert (left.model, left.status) == ("knn-cosine", "left out: it cannot tell tracks without plays apart")
    assert isinstance(baselines.progress, Heard)
    assert any(
        line.startswith("content-profile (cold-track, seed 0): tuned, recall@5") for line in baselines.progress.said
    )


def test_cold_tracks_are_judged_among_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of("cold-track")
    inner = parting.validation_split(split, SplitSettings())
    pools = []
    real = trying.Validation.recall

    def recall(self: trying.Validation, ranker: Ranker) -> float:
        assert self.panel.candidates is not None
        pools.append({IDS[item] for item in self.panel.candidates})
        return real(self, ranker)

    monkeypatch.setattr(trying.Validation, "recall", recall)
    run(prepared(tmp_path), split)
    assert inner.cold_track_ids
    assert all(pool == set(inner.cold_track_ids) for pool in pools)
    assert not set(inner.cold_track_ids) & set(split.cold_track_ids or [])


def test_cold_users_have_no_peers(tmp_path: Path) -> None:
    assert run(prepared(tmp_path), split_of("cold-user")) == ({}, [])


def test_where_validation_can_hold_nothing_out_defaults_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(split: Split, settings: SplitSettings) -> Split:
        raise DataError("too few listens")

    monkeypatch.setattr(parting, "validation_split", too_few)
    found, reports = run(prepared(tmp_path), split_of("warm"))
    assert len(found) == 3
    assert {report.status for report in reports} == {"not tuned, defaults taken: too few listens"}
    assert reports[0].params == next(p for p in BASELINES if p.name == "knn-cosine").defaults


def test_a_trial_that_diverges_is_worth_nothing_and_a_last_fit_that_does_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_whole = fitted_to(split_of("warm")).plays.counts.nnz

    def diverges(baseline: Baseline, material: BaselineData, params: Params, seed: int) -> Ranker:
        last_of_cosine = baseline.name == "knn-cosine" and material.plays.counts.nnz == n_whole
        if last_of_cosine or (baseline.name == "content-profile" and params == baseline.defaults):
            raise DataError("it diverged")
        return baseline.fit(material, params, seed)

    stand_ins(monkeypatch, diverges)
    found, reports = run(prepared(tmp_path), split_of("warm"))
    assert list(found) == ["artist-popularity", "content-profile"]
    assert (reports[0].status, reports[0].n_trials, reports[0].has_lists) == ("failed: it diverged", 4, False)
    values = [line["value"] for line in lines(tmp_path) if line["model"] == "content-profile"]
    assert values[0] == 0.0
    assert reports[2].value == max(values) > 0


def test_of_many_users_so_many_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = trying.Validation.recall
    monkeypatch.setattr(
        trying.Validation, "recall", lambda self, ranker: sizes.append(len(self.panel.user_rows)) or real(self, ranker)
    )
    run(prepared(tmp_path, max_users=7), split_of("warm"))
    assert set(sizes) == {7}


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(ValidationError, match="no model oracle"):
        BaselineSettings(models=("ease", "oracle"))


def test_spaces_become_distributions_of_their_kind() -> None:
    space = {"a": Number(1, 9, 2, whole=True), "b": Number(0.1, 9, 1, log=True), "c": Choice(("x", "y"))}
    found = trying._distributions(space)
    assert (found["a"].low, found["a"].high, type(found["a"]).__name__) == (1, 9, "IntDistribution")  # type: ignore[attr-defined]
    assert (found["b"].log, type(found["b"]).__name__) == (True, "FloatDistribution")  # type: ignore[attr-defined]
    assert found["c"].choices == ("x", "y")  # type: ignore[attr-defined]


def test_trials_are_read_as_they_were_kept(tmp_path: Path) -> None:
    decides = fingerprint({"a": 1}, [np.arange(3)], ["x"])
    kept = Trials(tmp_path, "warm-0", decides)
    trial = Trial({"l2": 0.1, "value": "log"}, 0.25, 1.5, {"warm": 0.125})
    kept.add("als", trial)
    assert Trials(tmp_path, "warm-0", decides).of("als") == kept.of("als") == [trial]
    assert Trials(tmp_path, "warm-0", decides).of("bpr") == []
    others = (
        fingerprint({"a": 2}, [np.arange(3)], ["x"]),
        fingerprint({"a": 1}, [np.arange(3.0)], ["x"]),
        fingerprint({"a": 1}, [np.arange(3)], ["y"]),
    )
    assert len({decides, *others}) == 4
