"""Held-out protocols as a run: leaks that were planted, runs that were killed, peers, cold users."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from eval.baselines.simple import Popularity, Ranker
from eval.checkpoint import KeptSplits, digest
from eval.judge import Judged
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.splitting.leakage import ALIKE, assert_no_leak, tags_of_listeners
from eval.splitting.protocols import splits
from eval.splitting.split import PROTOCOLS, Split, SplitSettings
from helpers.tastes import N_TRACKS, RecordingFit, TasteFake, catalogue, planted, plays_of_fake
from recsys.catalogue.listens import plays_of
from recsys.errors import DataError
from recsys.types import TAGS_SCHEMA, Candidates, Int32, Listens, Plays, Tags, Tracks
from recsys.util.progress import Progress, Silent
from recsys.util.settings import Settings

TRACKS = [f"t{n}" for n in range(N_TRACKS)]
QUICK = EvaluationSettings(ks=(3, 10), splits=SplitSettings(n_splits=2, fold_in_tracks=(1, 3)), n_resamples=100)


def run(out: Path, **changes: Any) -> Any:
    given = {"settings": Settings(), "evaluation_settings": QUICK, "fit": RecordingFit(), "tags": None} | changes
    return evaluate(catalogue(), planted(), out=out, **given)


def some_splits() -> Iterator[Split]:
    for protocol in PROTOCOLS:
        yield next(splits(planted(), protocol, SplitSettings(n_splits=1)))


# ---- leaks -----------------------------------------------------------------------------------------------------------


class LeakingFit(RecordingFit):
    """Sees everything, whatever it is given."""

    def __call__(self, tracks: Tracks, listens: Listens, *rest: Any, **named: Any) -> TasteFake:
        return super().__call__(tracks, planted(), *rest, **named)


@pytest.mark.parametrize(("protocol", "n_leaked"), [("warm", 24), ("cold-track", 21), ("cold-user", 16)])
def test_a_fit_that_sees_held_out_listens_is_caught(tmp_path: Path, protocol: str, n_leaked: int) -> None:
    settings = QUICK.model_copy(update={"protocols": (protocol,)})
    with pytest.raises(DataError, match=f"{n_leaked} pairs .* beyond the training listens of {protocol}, {n_leaked}"):
        run(tmp_path, fit=LeakingFit(), evaluation_settings=settings)
    assert not (tmp_path / "report.json").exists()


def test_every_kind_of_leak_is_caught_and_training_plays_are_not() -> None:
    for split in some_splits():
        honest = plays_of(split.train, TRACKS)
        assert_no_leak(honest, split)
        one = split.held_out.frame.head(1)
        with pytest.raises(DataError, match=r"1 pairs .* 1 of them held out"):
            assert_no_leak(plays_of(Listens(split.train.frame.vstack(one)), TRACKS), split)
        with pytest.raises(DataError, match="0 of them held out"):  # a repeat from after the cut, say
            assert_no_leak(plays_of(Listens(split.train.frame.vstack(split.train.frame.head(1))), TRACKS), split)
        disliked = one.with_columns(disliked=True, plays=0.0)
        with pytest.raises(DataError, match="1 pairs"):
            assert_no_leak(plays_of(Listens(split.train.frame.vstack(disliked)), TRACKS), split)
        fewer = replace(honest, counts=csr_matrix(honest.counts.shape, dtype=np.float32))
        assert_no_leak(fewer, split)  # to learn from less is no leak


def tags_of(pairs: list[tuple[str, str]]) -> Tags:
    return Tags(pl.DataFrame([(track, tag, 1.0) for track, tag in pairs], schema=TAGS_SCHEMA, orient="row"))


def test_tags_that_are_a_users_listening_are_caught() -> None:
    """A playlist of everything that u3 heard, held-out tracks too, beside tags that say something of the music."""
    heard = planted().frame.filter(user_id="u3")["track_id"].to_list()
    music = [(track, f"taste{int(track[1:]) % 2}") for track in TRACKS] + [(track, "loud") for track in TRACKS[::3]]
    for split in some_splits():
        assert_no_leak(plays_of(split.train, TRACKS), split, tags_of(music))
        if "u3" not in set(split.held_out.frame["user_id"]):
            continue
        leaking = tags_of(music + [(track, "mine") for track in heard])
        assert tags_of_listeners(leaking, split) == ["mine"]
        with pytest.raises(DataError, match=r"1 tags stand on what one user heard, .* 'mine'"):
            assert_no_leak(plays_of(split.train, TRACKS), split, leaking)
        half = tags_of(music + [(track, "half") for track in [*heard[:6], "t38", "t37"]])
        assert not tags_of_listeners(half, split)
        assert tags_of_listeners(half, split, ALIKE) == ["half"]


def test_tags_like_a_listener_are_noted_in_the_report(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"protocols": ("warm",)})
    heard = planted().frame.filter(user_id="u3")["track_id"].to_list()
    about = run(tmp_path, tags=tags_of([(track, "mine") for track in heard]), evaluation_settings=settings).about
    assert any(note.startswith("1 tags share half or more") and "mine" in note for note in about["notes"])
    honest = run(tmp_path, tags=tags_of([(track, "all") for track in TRACKS]), evaluation_settings=settings).about
    assert not any("share half" in note for note in honest["notes"])


def test_held_out_listens_change_nothing_that_the_fit_is_given(tmp_path: Path) -> None:
    """After a cut in time users hear other tracks: all that the fit gets stays bit for bit."""
    frame = (
        planted()
        .frame.with_row_index("hour")
        .with_columns(
            listened_at=pl.datetime(2024, 1, 1, time_zone="UTC", time_unit="us")
            + pl.duration(hours=pl.col("hour") * 37 % 96)
        )
    )
    late = frame.sort("listened_at").with_row_index("place")
    turned = (pl.col("track_id").str.slice(1).cast(pl.Int64) + 2) % N_TRACKS
    other = pl.when(pl.col("place") >= 76).then(pl.format("t{}", turned)).otherwise(pl.col("track_id"))
    after = late.with_columns(track_id=other).sort("hour").drop("place", "hour")
    settings = QUICK.model_copy(update={"protocols": ("warm",), "splits": SplitSettings(min_user_plays=0)})
    given = []
    for listens in (frame.drop("hour"), after):
        fit = RecordingFit()
        evaluate(
            *(catalogue(), Listens(listens), None),
            **{"settings": Settings(), "evaluation_settings": settings, "out": tmp_path, "fit": fit},
        )
        given.append((fit.given[0].frame, fit.orders))
    assert given[0][0].equals(given[1][0])
    assert given[0][1] == given[1][1]
    assert not frame.drop("hour").equals(after)


# ---- runs that go on -------------------------------------------------------------------------------------------------


class Killed(RecordingFit):
    """The third fit is killed."""

    def __call__(self, *given: Any, **named: Any) -> TasteFake:
        if len(self.given) == 2:
            raise KeyboardInterrupt
        return super().__call__(*given, **named)


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", fit=Killed())
    kept = sorted((tmp_path / "killed" / "evaluation.partial").rglob("*.npz"))
    assert [path.name for path in kept] == ["warm-0.npz", "warm-1.npz"]
    kept[1].write_bytes(b"PK")  # damaged: it is made again
    fit, whole = RecordingFit(), RecordingFit()
    resumed, fresh = run(tmp_path / "killed", fit=fit), run(tmp_path / "fresh", fit=whole)
    assert (len(fit.given), len(whole.given)) == (5, 6)
    assert resumed.figures.equals(fresh.figures)
    assert resumed.per_user.equals(fresh.per_user)
    assert resumed.about["tests"] == fresh.about["tests"]
    assert [split["note"] for split in resumed.about["splits"]] == [split["note"] for split in fresh.about["splits"]]
    assert not (tmp_path / "killed" / "evaluation.partial").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"settings": SplitSettings(seed=3)},  # whatever the fit is told
        {"evaluation_settings": QUICK.model_copy(update={"ks": (3, 9)})},
        {"tags": tags_of([("t1", "calm")])},
        {"baseline_facts": {"trials": 4}},
    ],
)
def test_what_was_judged_otherwise_is_not_taken(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fit=Killed())
    fit = RecordingFit()
    run(tmp_path, fit=fit, **change)
    assert len(fit.given) == 6


def test_judged_splits_come_back_as_they_were(tmp_path: Path) -> None:
    values = np.array([[0.25, np.nan]], dtype=np.float32)
    columns = [("all", "recall", 3), ("activity-low", "recall", 3)]
    judged = Judged("cold-user-1", "é", ["ü"], columns, values, {"coverage": [0.5]}, 1.5)
    KeptSplits(tmp_path, {"seed": 1}).put("cold-user", 4, [judged], {"note": "n"})
    found, report = KeptSplits(tmp_path, {"seed": 1}).get("cold-user", 4)
    np.testing.assert_array_equal(found[0].values, values)
    assert (found[0].split, found[0].model, found[0].user_ids, found[0].columns) == ("cold-user-1", "é", ["ü"], columns)
    assert (found[0].whole, found[0].seconds, report) == ({"coverage": [0.5]}, 1.5, {"note": "n"})
    assert KeptSplits(tmp_path, {"seed": 2}).get("cold-user", 4) is None
    assert KeptSplits(tmp_path, {"seed": 1}).get("cold-user", 5) is None


def test_a_digest_is_of_values_names_and_order() -> None:
    frame = planted().frame
    others = [frame.reverse(), frame.rename({"plays": "play"}), frame.with_columns(plays=pl.col("plays") + 1)]
    assert len({digest(one) for one in (frame, *others)}) == 4
    assert digest(frame) == digest(planted().frame.clone())


# ---- peers, cold users, records --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldingPeer:
    """Popularity that can fold in."""

    inner: Popularity

    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates:
        return self.inner.rank(user_rows, k, candidates)

    def rank_folded(self, counts: csr_matrix, k: int, candidates: Int32 | None = None) -> Candidates:
        users = np.arange(counts.shape[0], dtype=np.int32)
        given = Plays(counts, csr_matrix(counts.shape, dtype=bool), [str(row) for row in users], TRACKS)
        return Popularity(given, 0, self.inner.plays).rank(users, k, candidates)


def baselines(fitted: TasteFake, split: Split) -> Iterator[tuple[str, Ranker | None]]:
    yield "plain", Popularity(fitted.plays, 5)
    yield "late", None
    yield "folding", FoldingPeer(Popularity(fitted.plays, 5))


def test_peers_are_judged_beside_ours_and_those_that_fold_in_on_cold_users(tmp_path: Path) -> None:
    evaluation = run(tmp_path, baselines=baselines)
    by_split = {
        split: rows["model"].unique(maintain_order=True).to_list()
        for (split,), rows in evaluation.figures.group_by("split", maintain_order=True)
    }
    ours = ["hybrid/worst", "hybrid"]
    assert by_split["warm"] == ["random", "popularity", "plain", "folding", *ours]
    assert by_split["cold-track-among-all"] == by_split["warm"]
    assert by_split["cold-user-1"] == by_split["cold-user-3"] == ["random", "popularity", "folding", *ours]
    assert evaluation.about["unfinished"] == [f"late on {protocol}" for protocol in PROTOCOLS]
    assert [split["unfinished"] for split in evaluation.about["splits"][:2]] == [["late on warm"]] * 2
    assert set(evaluation.about["splits"][0]["peer_seconds"]) == {"plain", "late", "folding"}
    recall = evaluation.figures.filter(split="cold-user-1", metric="recall", segment="all", k=10)
    value = dict(recall.select("model", "value").rows())
    assert value["hybrid"] > value["popularity"]
    assert value["hybrid/worst"] < value["popularity"]


@dataclass(frozen=True)
class Outcome:
    model: str
    protocol: str
    seed: int
    status: str
    params: dict[str, int] | None


class TellingPeers:
    """One peer ranks, one is of no use here, one fails on the second split."""

    def __init__(self) -> None:
        self.reports: list[Outcome] = []

    def __call__(self, fitted: TasteFake, split: Split) -> Iterator[tuple[str, Ranker | None]]:
        here = (split.protocol, split.seed)
        self.reports.append(Outcome("useless", *here, "left out: it ranks nothing", None))
        if split.seed == 0:
            self.reports.append(Outcome("frail", *here, "tuned", {"n": 1}))
            yield "frail", Popularity(fitted.plays)
        else:
            self.reports.append(Outcome("frail", *here, "failed: no more memory", None))


def test_a_peer_that_misses_a_split_is_named_and_not_compared(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"protocols": ("warm",)})
    evaluation = run(tmp_path, baselines=TellingPeers(), evaluation_settings=settings)
    assert evaluation.about["unfinished"] == [
        "frail on warm (failed: no more memory)",
        "frail (1 of 2 splits of warm)",
    ]
    assert "frail" not in set(evaluation.figures["model"])
    assert "frail" not in {record["model"] for record in evaluation.about["tests"]}
    told = [[one["model"] for one in split["peers"]] for split in evaluation.about["splits"]]
    assert told == [["useless", "frail"]] * 2
    assert evaluation.about["splits"][0]["peers"][1]["params"] == {"n": 1}


def test_the_report_has_tests_and_each_users_recall(tmp_path: Path) -> None:
    evaluation = run(tmp_path, baselines=baselines)
    tests = evaluation.about["tests"]
    assert {record["model"] for record in tests} == {"random", "popularity", "plain", "folding", "hybrid/worst"}
    (best,) = (one for one in tests if one["split"] == "warm" and one["is_best_baseline"])
    assert best["metric"] == "recall@10"
    values = evaluation.figures.filter(split="warm", metric="recall", segment="all", k=10)
    value = dict(values.select("model", "value").rows())
    assert best["difference"] == pytest.approx(value["hybrid"] - value[best["model"]])
    assert value[best["model"]] == max(value[name] for name in ("random", "popularity", "plain", "folding"))
    per_user = pl.read_parquet(tmp_path / "per_user.parquet")
    assert per_user.columns == ["user_id", "split", "model", "recall@10"]
    of_hybrid = per_user.filter(split="warm", model="hybrid")
    assert sorted(of_hybrid["user_id"]) == sorted(f"u{n}" for n in range(12))
    assert of_hybrid["recall@10"].mean() == pytest.approx(value["hybrid"])


def test_segments_and_lists_are_in_the_table(tmp_path: Path) -> None:
    figures = run(tmp_path).figures
    assert {"gini", "novelty", "diversity", "popularity_percentile"} <= set(figures["metric"])
    assert "artists" not in set(figures["metric"])  # no artist is known here
    hybrid = figures.filter(model="hybrid", split="warm", metric="diversity", k=3)["value"].item()
    assert hybrid == pytest.approx(0, abs=1e-6)  # one taste, one sound
    assert figures.filter(model="random", split="warm", metric="diversity", k=3)["value"].item() > 0.2
    assert set(figures.filter(split="cold-track")["segment"]) == {
        "all",
        "activity-low",
        "activity-high",
        "artist-unknown",
    }
    assert set(figures.filter(split="cold-user-1")["segment"]) <= {
        *("all", "popularity-low", "popularity-middle", "popularity-high")
    }
    assert "popularity-low" in set(figures.filter(split="warm")["segment"])


def test_progress_is_told_of_every_model() -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.bars: list[str] = []

        def bar(self, description: str, total: int, unit: str) -> Any:
            self.bars.append(description)
            return super().bar(description, total, unit)

    from eval.judge import judge

    split = next(some_splits())
    told: Progress = Told()
    judge(TasteFake(plays_of_fake(split.train, N_TRACKS)), split, (3,), 50, told)
    assert told.bars == [f"judging warm: {name}" for name in ("random", "popularity", "hybrid/worst", "hybrid")]
