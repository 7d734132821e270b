"""The live protocol as a run: figures by hand, models that follow and those that do not, a user's events together."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from eval.aggregate import Gathered, gather, summarise
from eval.checkpoint import KeptSplits
from eval.judge import Judged, by_user
from eval.metrics.accuracy import bootstrap_ci, mean_over_users
from eval.metrics.panels import panels_of
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.significance import compare, permutation_p
from eval.splitting.protocols import splits
from eval.splitting.split import SplitSettings
from helpers.tastes import N_TRACKS, RecordingFit, TasteFake, catalogue, plays_of_fake
from recsys.types import LISTENS_SCHEMA, NO_ITEM, Candidates, Histories, Int32, Listens, Plays
from recsys.util.settings import Settings

START = datetime(2024, 5, 1, tzinfo=UTC)
LIVE = EvaluationSettings(
    protocols=("live",), ks=(1, 3), splits=SplitSettings(held_out_share=0.4, max_user_plays=1000), n_resamples=100
)


def log() -> Listens:
    """u0 to u5 walk through the tracks of their taste, two on each time; the last user only comes after the cut."""
    rows = []
    for user in range(6):
        for step in range(8):
            track = (user % 2 + 2 * step + 6 * (user // 2)) % N_TRACKS
            late = 7.5 if user == 5 else 0
            rows.append((f"u{user}", f"t{track}", 1.0, START + timedelta(hours=step + late), False, False))
    return Listens(pl.DataFrame(rows, schema=LISTENS_SCHEMA, orient="row"))


@dataclass(frozen=True)
class FollowingFake(TasteFake):
    """Knows that two on is next."""

    def rank_at(
        self, counts: csr_matrix, histories: Histories, now: NDArray[np.int64], k: int, candidates: Int32 | None = None
    ) -> Candidates:
        last = np.array([histories.of(row)[0][-1] for row in range(len(histories))])
        items = np.full((len(now), k), NO_ITEM, dtype=np.int32)
        items[:, 0] = (last + 2) % N_TRACKS
        return Candidates(items, np.where(items == NO_ITEM, -np.inf, 1).astype(np.float32))


class FollowingFit(RecordingFit):
    def __call__(self, *given: Any, **named: Any) -> TasteFake:
        return FollowingFake(super().__call__(*given, **named).plays)


def run(out: Path, fit: RecordingFit, settings: EvaluationSettings = LIVE) -> Any:
    return evaluate(catalogue(), log(), None, settings=Settings(), evaluation_settings=settings, out=out, fit=fit)


def recall(evaluation: Any, split: str, k: int = 1, metric: str = "recall") -> dict[str, float]:
    rows = evaluation.figures.filter(split=split, metric=metric, segment="all", k=k)
    return dict(rows.select("model", "value").rows())


def test_what_comes_next_is_asked_for_at_each_event_and_judged_beside_the_hybrid(tmp_path: Path) -> None:
    evaluation = run(tmp_path, FollowingFit())
    names = set(evaluation.figures["split"])
    assert names == {"live", "live-played", "live-unplayed", "live-cold-users"}
    for split in names:
        assert recall(evaluation, split)["hybrid"] == 1.0
        assert recall(evaluation, split, metric="mrr")["hybrid"] == 1.0
        assert set(recall(evaluation, split)) == {
            "random",
            "popularity",
            "hybrid/all-plays",
            "hybrid",
        }  # no parts alone
    assert recall(evaluation, "live")["hybrid/all-plays"] < 1
    assert any("hit@k" in note for note in evaluation.about["notes"])
    (split,) = evaluation.about["splits"]
    assert "events of 6 users are asked" in split["note"]


def test_a_hybrid_that_does_not_follow_is_asked_by_all_plays(tmp_path: Path) -> None:
    assert set(recall(run(tmp_path, RecordingFit()), "live")) == {"random", "popularity", "hybrid"}


def test_the_fit_sees_what_came_before_the_cut_alone(tmp_path: Path) -> None:
    fit = RecordingFit()
    run(tmp_path, fit)
    (given,) = fit.given
    split = next(splits(log(), "live", LIVE.splits))
    assert sorted(given.frame.rows()) == sorted(split.train.frame.rows())


def test_views_tell_played_tracks_and_known_users() -> None:
    split = next(splits(log(), "live", LIVE.splits))
    plays = plays_of_fake(split.train, N_TRACKS)
    (panel,) = panels_of(split, plays, 100)
    known = set(split.train.frame["user_id"])
    played = set(split.train.frame["track_id"])
    rows = {view.name: view.rows for view in panel.judged}
    users, tracks = panel.user_ids, [plays.track_ids[item] for item in panel.held_out.indices]
    assert rows["live"].tolist() == [user in known for user in users]
    assert rows["live-played"].tolist() == [u in known and t in played for u, t in zip(users, tracks, strict=True)]
    assert rows["live-cold-users"].tolist() == [user not in known for user in users]
    assert (rows["live-played"] ^ rows["live-unplayed"]).tolist() == rows["live"].tolist()
    assert "u5" not in known


def test_values_are_means_over_events_with_each_user_as_a_whole() -> None:
    """Ten events of one user, two of another, by hand."""
    ids = np.array(["b"] * 10 + ["a"] * 2)
    values = np.array([[1.0]] * 4 + [[0.0]] * 6 + [[1.0], [np.nan]], dtype=np.float32)
    users, means, weights = by_user(ids, values)
    assert users == ["a", "b"]
    assert weights is not None
    assert means[:, 0].tolist() == [1, pytest.approx(0.4)]
    assert weights[:, 0].tolist() == [1, 10]
    assert mean_over_users(means[:, None], weights[:, None])[0] == pytest.approx(5 / 11)
    low, high = bootstrap_ci(means[:, None], 400, weights=weights[:, None])
    assert low[0] == pytest.approx(0.4)  # b alone is drawn
    assert high[0] == pytest.approx(1.0)
    assert by_user(np.array(["x", "y"]), values[:2])[2] is None


def test_weights_of_one_list_each_change_nothing() -> None:
    values = np.random.default_rng(0).random((9, 2, 3))
    values[4, 1] = np.nan
    ones = np.ones_like(values)
    assert mean_over_users(values, ones) == pytest.approx(mean_over_users(values))
    for alike, plain in zip(bootstrap_ci(values, 200, weights=ones), bootstrap_ci(values, 200), strict=True):
        assert alike == pytest.approx(plain)


def test_tests_and_the_table_count_events(tmp_path: Path) -> None:
    columns = [("all", metric, 3) for metric in ("recall", "mrr")]

    def judged(model: str, values: list[float]) -> Judged:
        weights = np.array([[1, 1], [9, 9], [2, 2]], dtype=np.float32)
        table = np.array([values, [value / 2 for value in values]], dtype=np.float32).T
        return Judged("live", model, ["a", "b", "c"], columns, table, {}, 0.0, weights)

    both = [judged("hybrid", [0.0, 1.0, 0.5]), judged("other", [1.0, 0.0, 0.5])]
    kept = KeptSplits(tmp_path, {})
    kept.put("live", 0, both, {})
    found = kept.get("live", 0)
    assert found is not None
    gathered = gather(found[0])
    figures = summarise(gathered, (3,), 100, 0)
    assert figures["value"].to_list() == pytest.approx([10 / 12, 5 / 12, 2 / 12, 1 / 12])
    assert figures["n_users"].to_list() == [3] * 4
    on_hits, on_ranks = compare(gathered, 3, 100, 0)
    assert (on_hits["metric"], on_ranks["metric"]) == ("recall@3", "mrr@3")
    assert on_hits["difference"] == pytest.approx(8 / 12)
    assert on_ranks["difference"] == pytest.approx(4 / 12)
    assert isinstance(gathered[0], Gathered)


def test_swaps_of_users_weigh_their_events() -> None:
    """A difference of a user with nine events counts as nine."""
    differences = np.random.default_rng(2).normal(0.1, 1, (12, 1, 1))
    weights = np.random.default_rng(3).integers(1, 10, (12, 1, 1)).astype(float)
    p = permutation_p(differences, 999, 0, weights)
    assert p == pytest.approx(permutation_p(differences * weights * 12 / weights.sum(), 999, 0))
    assert p != pytest.approx(permutation_p(differences, 999, 0))


def test_last_parts_and_made_up_tracks_go_through_the_whole_run(tmp_path: Path) -> None:
    parts = SplitSettings(warm_split="last-plays", made_up=(1,), held_out_share=0.3)
    settings = LIVE.model_copy(update={"protocols": ("warm",), "splits": parts})

    class Fit(RecordingFit):
        def __call__(self, tracks: Any, *given: Any, **named: Any) -> TasteFake:
            fake = super().__call__(tracks, *given, **named)
            ids = [f"t{row}" for row in range(N_TRACKS)]
            ids += sorted(set(tracks.frame["track_id"]) - set(ids))
            counts = csr_matrix(
                (fake.plays.counts.data, fake.plays.counts.indices, fake.plays.counts.indptr), (6, len(ids))
            )

            return WideFake(Plays(counts, csr_matrix(counts.shape, dtype=bool), fake.plays.user_ids, ids))

    fit = Fit()
    evaluation = run(tmp_path, fit, settings)
    names = evaluation.figures["split"].unique(maintain_order=True).to_list()
    assert names == [
        f"warm-last-plays{made_up}-{part}" for made_up in ("", "-made-up-1") for part in ("played", "unplayed", "total")
    ]
    made_up = [track for track in fit.orders[1] if track.startswith("made-up-track-")]
    assert made_up
    assert not set(made_up) & set(fit.orders[0])
    assert set(fit.orders[0]) == set(fit.orders[1]) - set(made_up)
    total = recall(evaluation, "warm-last-plays-total", 3)["random"]
    assert 0 <= total <= 1


class WideFake(TasteFake):
    """The fake, with made-up tracks of no taste at the end."""

    def rank(self, user_ids: Any, k: int, candidates: Int32 | None = None, *, part: str | None = None) -> Candidates:
        some = np.arange(len(self.plays.track_ids), dtype=np.int32) if candidates is None else candidates
        items = np.full((len(user_ids), k), NO_ITEM, dtype=np.int32)
        for row, user_id in enumerate(user_ids):
            heard = self.plays.counts[[self.plays.user_ids.index(user_id)]].indices
            left = np.setdiff1d(some, heard)[:k]
            items[row, : len(left)] = left
        return Candidates(items, np.where(items == NO_ITEM, -np.inf, 1).astype(np.float32))

    @property
    def sound(self) -> tuple[Int32, Any]:
        return np.zeros(0, np.int32), np.zeros((0, 1), np.float32)
