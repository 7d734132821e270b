"""`recsys tune`: the base comes first, the better setting is found, a kill costs one trial, sound is heard once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from eval.baselines.base import Choice, Number
from eval.checkpoint import Partial
from eval.splitting.protocols import splits
from eval.tuning import trials as trying
from eval.tuning import tune_hybrid as tuning
from eval.tuning.objective import Fitting
from eval.tuning.settings_file import value_at, with_values
from eval.tuning.trials import Trial
from eval.tuning.tune_hybrid import SPACE, TuneSettings, space_of, tune, tune_settings
from helpers.catalogues import AudioCatalogue, quick_settings
from helpers.made_tuning import BEST_L2, PlantedFit, lines, tuned
from helpers.tastes import N_TRACKS, RecordingFit, TasteFake, catalogue, planted, plays_of_fake
from pipelines.build import read_catalogue
from recsys.catalogue.problems import Problems
from recsys.config import RunSettings
from recsys.errors import ConfigError, DataError
from recsys.fit import fit as real_fit
from recsys.types import Candidates, Listens, Tags, Tracks
from recsys.util.progress import Progress, Silent

PLAYED = csr_matrix(np.array([[1.0, 0.0, 3.0]], dtype=np.float32))


# ---- what is searched ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPACE)
def test_what_is_tuned_is_a_setting_and_begins_at_its_default(path: str) -> None:
    dimension, default = SPACE[path], value_at(RunSettings(), path)
    assert dimension.default == default
    if isinstance(dimension, Choice):
        ends = dimension.options
    else:
        assert dimension.low <= dimension.default <= dimension.high
        ends = tuple(int(end) if dimension.whole else end for end in (dimension.low, dimension.high))
    for end in ends:
        assert value_at(with_values(RunSettings(), {path: end}), path) == end


def test_the_search_begins_at_the_base_wherever_that_is() -> None:
    base = RunSettings.model_validate({"hybrid": {"als": {"n_factors": 300, "l2": 0.1, "confidence_scale": 2.0}}})
    found = space_of(base)
    factors, l2 = found["hybrid.als.n_factors"], found["hybrid.als.l2"]
    assert isinstance(factors, Number)
    assert isinstance(l2, Number)
    assert (factors.low, factors.high, factors.default) == (32, 300, 300)
    assert (l2.low, l2.high, l2.default) == (0.1, 100, 0.1)
    assert tuning.CONFIDENCE not in found


def test_who_tunes_als_has_chosen_it() -> None:
    base = RunSettings()
    assert tuning.changed_settings(base, {"hybrid.prior.strength": 0.1}).hybrid.choice.enabled
    assert not tuning.changed_settings(base, {"hybrid.als.l2": 3.0}).hybrid.choice.enabled


def test_what_the_base_turns_off_stays_off() -> None:
    base = RunSettings.model_validate({"hybrid": {"lightfm": {"enabled": False}, "prior": {"strength": 0.0}}})
    left = set(SPACE) - set(space_of(base))
    assert left == {path for path in SPACE if ".lightfm." in path} | {"hybrid.prior.strength"}


# ---- trials ----------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_base_and_the_planted_setting_is_found(tmp_path: Path) -> None:
    fit = PlantedFit()
    found = tuned(tmp_path, fit, trials=12)
    assert fit.settings[0] == RunSettings()
    values = [line["value"] for line in lines(tmp_path)]
    assert len(values) == len(fit.settings) == found.n_trials == 12
    assert found.before == {"warm": values[0]}
    assert found.after == {"warm": max(values)}
    assert max(values) > values[0] > 0
    assert abs(np.log10(found.settings.hybrid.als.l2 / BEST_L2)) < 1
    assert found.settings == fit.settings[int(np.argmax(values))]
    assert ("hybrid.als.l2", 10.0, found.settings.hybrid.als.l2) in found.changed


def test_where_nothing_is_better_the_base_stays_as_it_is(tmp_path: Path) -> None:
    found = tuned(tmp_path, RecordingFit(N_TRACKS))
    assert found.settings == RunSettings()
    assert found.settings.hybrid.als.confidence_scale is None
    assert found.changed == []
    assert found.before == found.after


def test_what_is_held_out_reaches_no_fit(tmp_path: Path) -> None:
    fit = PlantedFit()
    tuned(tmp_path, fit, trials=2, protocol="both")
    every = set(planted().frame.select("user_id", "track_id").rows())
    for train in fit.listens:
        assert set(train.frame.select("user_id", "track_id").rows()) < every

    def leaks(tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress) -> TasteFake:
        return TasteFake(plays_of_fake(planted(), N_TRACKS))

    with pytest.raises(DataError, match="beyond the training listens of warm"):
        tuned(tmp_path / "leak", leaks)


def test_a_leak_that_comes_later_ends_the_run_too(tmp_path: Path) -> None:
    fit = PlantedFit()

    def leaks(tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress) -> TasteFake:
        return fit(tracks, planted() if fit.settings else listens, tags, settings, progress=progress)

    with pytest.raises(DataError, match="beyond the training listens of warm"):
        tuned(tmp_path, leaks)


def test_both_protocols_count_by_their_ratio_to_the_base(tmp_path: Path) -> None:
    found = tuned(tmp_path, PlantedFit(), protocol="both")
    first, *others = lines(tmp_path)
    assert first["value"] == 1.0
    assert set(first["figures"]) == {"warm", "cold-track"} == set(found.before)
    assert first["figures"]["warm"] != first["figures"]["cold-track"]
    for line in others:
        ratios = [line["figures"][name] / first["figures"][name] for name in first["figures"]]
        assert line["value"] == pytest.approx(sum(ratios) / 2)


def test_a_base_that_finds_nothing_has_no_ratio(tmp_path: Path) -> None:
    class Blind(TasteFake):
        def rank(self, user_ids: Sequence[str], k: int, *_: Any, **__: Any) -> Candidates:
            empty = (len(user_ids), k)
            return Candidates(np.full(empty, -1, np.int32), np.full(empty, -np.inf, np.float32))

    def fit(tracks: Tracks, listens: Listens, tags: Tags | None, settings: Any, *, progress: Progress) -> TasteFake:
        return Blind(plays_of_fake(listens, N_TRACKS))

    with pytest.raises(DataError, match="recall@3 0 on warm and cold-track"):
        tuned(tmp_path, fit, protocol="both")
    assert tuned(tmp_path / "one", fit, trials=2).after == {"warm": 0.0}


def test_a_trial_that_fails_is_worth_nothing_but_the_base_must_fit(tmp_path: Path) -> None:
    def breaks(settings: RunSettings) -> None:
        if settings != RunSettings():
            raise ValueError("not all parameters are finite")

    found = tuned(tmp_path, PlantedFit(before=breaks), trials=3)
    assert found.settings == RunSettings()
    assert [line["value"] for line in lines(tmp_path)][1:] == [0.0, 0.0]

    def base_breaks(settings: RunSettings) -> None:
        raise DataError("nothing usable")

    with pytest.raises(DataError, match="nothing usable"):
        tuned(tmp_path / "base", PlantedFit(before=base_breaks))
    assert not list((tmp_path / "base").glob("*.jsonl"))


# ---- a kill, time ----------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_was_not(tmp_path: Path) -> None:
    whole = tuned(tmp_path / "whole", PlantedFit(), trials=8, protocol="both")
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "killed", PlantedFit(dies_at=11), trials=8, protocol="both")  # in the sixth trial's second fit
    assert len(lines(tmp_path / "killed")) == 5
    [file] = (tmp_path / "killed").glob("*.jsonl")
    with file.open("a") as torn:
        torn.write('{"model": "hyb')
    fit = PlantedFit()
    again = tuned(tmp_path / "killed", fit, trials=8, protocol="both")
    assert len(fit.settings) == 2 * 3
    tried, tried_again = (
        [(line["params"], line["value"], line["figures"]) for line in lines(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert tried == tried_again
    assert (whole.settings, whole.before, whole.after) == (again.settings, again.before, again.after)


def test_more_trials_go_on_and_other_inputs_begin_anew(tmp_path: Path) -> None:
    fit = PlantedFit()
    tuned(tmp_path, fit, trials=2)
    tuned(tmp_path, fit, trials=3, time_budget_s=1000.0)
    assert len(fit.settings) == 3
    assert tuned(tmp_path, fit, trials=3).n_trials == 3
    assert len(fit.settings) == 3
    other = Tracks(catalogue().frame.with_columns(title=pl.lit("x")))
    for given in ({"seed": 1}, {"k": 4}, {"protocol": "both"}, {"tracks": other}, {"splits": {"held_out_share": 0.3}}):
        n_files = len(list(tmp_path.glob("*.jsonl")))
        tuned(tmp_path, fit, **{"trials": 1, **given})
        assert len(list(tmp_path.glob("*.jsonl"))) == n_files + 1, given


class Clock:
    """Stands still but for what is said to take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(tuning, "time", self)
        monkeypatch.setattr(trying, "time", self)

    def perf_counter(self) -> float:
        return self.now


def test_no_trial_begins_once_the_time_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def takes_ten(settings: RunSettings) -> None:
        clock.now += 10

    fit = PlantedFit(before=takes_ten)
    found = tuned(tmp_path, fit, trials=9, time_budget_s=25.0)
    assert (found.n_trials, found.n_asked, clock.now) == (3, 9, 30)
    assert "3 trials of 9 (the time budget was spent)" in found.told()[1]
    assert tuned(tmp_path, fit, trials=9, time_budget_s=1.0).n_trials == 4  # the next run has time of its own
    assert tuned(tmp_path / "new", fit, trials=9, time_budget_s=1e-9).n_trials == 1


def test_the_bar_tells_the_best_the_pace_and_the_end() -> None:
    trials = [Trial({}, 0.5, 30.0), Trial({}, 0.75, 90.0), Trial({}, 0.5, 0.0)]
    assert tuning._note([], 20, None) == "the base settings"
    assert tuning._note(trials, 13, None) == "best 0.7500, base 0.5000, 60 s each, 10 min left"
    assert tuning._note(trials, 13, 240.0).endswith("4 min left")


# ---- sound -----------------------------------------------------------------------------------------------------


def test_sound_is_heard_once_a_split(tmp_path: Path) -> None:
    with_paths = Tracks(catalogue().frame.with_columns(path=pl.lit("/nowhere/") + pl.col("track_id")))
    fit = PlantedFit()
    tuned(tmp_path, fit, with_paths, trials=2, protocol="both")
    assert [tracks.frame["path"].count() for tracks in fit.tracks] == [N_TRACKS] * 2 + [0] * 4
    assert fit.settings[:2] == [RunSettings()] * 2
    for tracks in fit.tracks[2:]:
        vectors = {row["track_id"]: row["vector"] for row in tracks.frame.iter_rows(named=True)}
        expected = {f"t{n}": [1.0 - n % 2, float(n % 2)] if n < N_TRACKS - 2 else None for n in range(N_TRACKS)}
        assert vectors == expected
    tuned(tmp_path, fit, with_paths, trials=3, protocol="both")
    assert len(fit.settings) == 8, "vectors of an earlier run are taken"


def test_given_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    given = Tracks(catalogue().frame.with_columns(path=pl.lit("/x"), vector=pl.lit([1.0, 2.0], pl.List(pl.Float32))))
    fit = PlantedFit()
    tuned(tmp_path, fit, given, trials=1)
    [tracks] = fit.tracks
    assert tracks.frame["vector"].to_list() == [[1.0, 2.0]] * N_TRACKS


@pytest.mark.slow
def test_a_fit_on_vectors_that_were_handed_over_is_that_of_the_audio(
    audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    read = read_catalogue(audio_catalogue.inputs, quick_settings(), Problems())
    assert read.listens is not None
    [split] = splits(read.listens, "cold-track", TuneSettings().splits.model_copy(update={"n_splits": 1}))
    fitting = Fitting(real_fit, None, quick_settings(), 3, 10, Silent())
    handed = fitting.heard(read.tracks, split, Partial(tmp_path, {}))
    assert handed.frame["path"].count() == 0
    heard, silent = (real_fit(tracks, split.train, None, quick_settings()) for tracks in (read.tracks, handed))
    assert silent.artefacts.sound.model is None
    for recommender in (heard, silent):
        assert len(recommender.sound[0]) == 8
    ours, theirs = (r.rank(heard.plays.user_ids, 8) for r in (heard, silent))
    assert (ours.items == theirs.items).all()
    assert np.allclose(ours.scores, theirs.scores)


# ---- what cannot be --------------------------------------------------------------------------------------------


def test_wrong_words_are_told() -> None:
    assert tune_settings("both", 3, 2.0, 5, "artist").splits.cold_by == "artist"
    for given in (("cold-user", 3, None, 0, "track"), ("warm", 3, None, -1, "track"), ("warm", 3, None, 0, "mood")):
        with pytest.raises(ConfigError) as caught:
            tune_settings(*given)
        assert "\n" not in str(caught.value)


def test_without_listens_there_is_nothing_to_tune_on(tmp_path: Path) -> None:
    nobody = Listens(planted().frame.clear())
    few = Listens(planted().frame.head(1))
    for listens, complaint in ((None, "no listens"), (nobody, "no listens"), (few, "can hold nothing out")):
        with pytest.raises(DataError, match=complaint):
            tune(
                catalogue(),
                listens,
                None,
                settings=RunSettings(),
                tune_settings=TuneSettings(),
                folder=tmp_path / "trials",
                fit=PlantedFit(),
            )
    assert not (tmp_path / "trials").exists()
