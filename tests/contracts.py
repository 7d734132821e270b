"""What everything that ranks must keep, whoever ranks. A test class inherits a contract and says what to hold to it.

``RankerContract`` is of rows and batches: the baselines and each part of the blend. ``RecommenderContract`` is of
ids and lists: a fit in memory and an opened store. Both hold over the tiny catalogue of ``conftest``.
"""

import csv
from collections import Counter
from typing import Any, Protocol

import numpy as np
import pytest

from helpers.catalogues import TinyCatalogue
from recsys.errors import ConfigError, DataError, NoSpaceError, NotFoundError
from recsys.recommender import Recommender
from recsys.types import NO_ITEM, Candidates, Int32, Plays, RankedList, RankedTrack

N_TRACKS = 40
COLD, ONLY_DISLIKES, DISLIKED_AND_LIKED = "t39", "u29", "u28"


class Ranker(Protocol):
    def rank(self, user_rows: Int32, k: int, candidates: Int32 | None = None) -> Candidates: ...


class RankerContract:
    """Inheriting classes give ``make(recommender)``: a ranker over the recommender's training plays."""

    @staticmethod
    def make(recommender: Recommender) -> Ranker:
        raise NotImplementedError

    @pytest.fixture
    def ranker(self, tiny_fit: Recommender) -> Ranker:
        return self.make(tiny_fit)

    @pytest.fixture
    def plays(self, tiny_fit: Recommender) -> Plays:
        return tiny_fit.plays

    @pytest.mark.parametrize("candidates", [None, np.array([38, 1, 2, 39, 7, 11], np.int32), np.zeros(0, np.int32)])
    @pytest.mark.parametrize("k", [1, 7, 60])
    def test_exactly_the_open_candidates_come_best_first(
        self, ranker: Ranker, plays: Plays, k: int, candidates: Int32 | None
    ) -> None:
        users = np.arange(len(plays.user_ids), dtype=np.int32)
        ranked = ranker.rank(users, k, candidates)
        assert ranked.items.shape == ranked.scores.shape == (len(users), k)
        allowed = set(range(N_TRACKS)) if candidates is None else set(candidates.tolist())
        for user in users.tolist():
            closed = {*plays.counts[[user]].indices.tolist(), *plays.barred[[user]].indices.tolist()}
            n_open = min(k, len(allowed - closed))
            items, scores = ranked.items[user], ranked.scores[user]
            assert set(items[:n_open].tolist()) <= allowed - closed
            assert len(set(items[:n_open].tolist())) == n_open
            assert (items[n_open:] == NO_ITEM).all()
            assert np.isfinite(scores[:n_open]).all()
            assert np.isneginf(scores[n_open:]).all()
            assert (np.diff(scores[:n_open]) <= 0).all()

    def test_a_batch_is_its_users_one_by_one(self, ranker: Ranker) -> None:
        users = np.array([9, 0, 29, 4, 4], np.int32)
        batch = ranker.rank(users, 8)
        for place, user in enumerate(users):
            alone = ranker.rank(np.array([user], np.int32), 8)
            assert batch.items[place].tolist() == alone.items[0].tolist()
            np.testing.assert_allclose(batch.scores[place], alone.scores[0], rtol=1e-5)

    def test_a_shorter_list_is_the_beginning_of_a_longer_one(self, ranker: Ranker) -> None:
        users = np.arange(30, dtype=np.int32)
        assert np.array_equal(ranker.rank(users, 5).items, ranker.rank(users, 11).items[:, :5])

    def test_nobody_gets_nothing(self, ranker: Ranker) -> None:
        assert ranker.rank(np.zeros(0, np.int32), 4).items.shape == (0, 4)

    def test_made_again_it_ranks_the_same(self, ranker: Ranker, tiny_fit: Recommender) -> None:
        users = np.arange(30, dtype=np.int32)
        assert np.array_equal(self.make(tiny_fit).rank(users, 9).items, ranker.rank(users, 9).items)


def heard_and_barred(world: TinyCatalogue) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Read from the file itself what each user played and disliked."""
    heard: dict[str, set[str]] = {f"u{n}": set() for n in range(30)}
    barred: dict[str, set[str]] = {f"u{n}": set() for n in range(30)}
    with world.listens.open(newline="") as file:
        for row in csv.DictReader(file):
            (barred if row["disliked"] == "1" else heard)[row["user_id"]].add(row["track_id"])
    return {user: tracks - barred[user] for user, tracks in heard.items()}, barred


def ids(found: RankedList) -> list[str]:
    return [track.track_id for track in found.tracks]


def scores(found: RankedList) -> list[float]:
    return [track.score for track in found.tracks]


PLAIN_POPULAR: dict[str, Any] = {
    "max_per_artist": N_TRACKS,
    "diversity": 0.0,
}  # lists for users without plays are varied by default
ALL_USERS = [f"u{n}" for n in range(30)]
ALL_TRACKS = [f"t{n}" for n in range(N_TRACKS)]


class RecommenderContract:
    """Inheriting classes have a fixture ``recommender`` over the tiny catalogue."""

    def test_every_list_holds_all_that_was_not_heard_or_disliked_best_first(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        heard, barred = heard_and_barred(tiny_catalogue)
        for user in ALL_USERS:
            found = recommender.recommend(user, 200)
            assert sorted(ids(found)) == sorted(set(ALL_TRACKS) - heard[user] - barred[user])
            assert [track.rank for track in found.tracks] == list(range(1, len(found.tracks) + 1))
            assert scores(found) == sorted(scores(found), reverse=True) or not heard[user]
            assert np.isfinite(scores(found)).all()
            assert found.source == ("personal" if heard[user] else "popular")
            assert found.generation == recommender.generation

    def test_the_reason_is_the_heard_track_that_is_most_alike(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        heard, _ = heard_and_barred(tiny_catalogue)
        for user in ("u0", "u7", DISLIKED_AND_LIKED):
            for track in recommender.recommend(user, 7).tracks:
                alike = ids(recommender.similar(track.track_id, 200))
                assert track.reason_track_id == min(heard[user], key=alike.index)
        assert {track.reason_track_id for track in recommender.recommend(ONLY_DISLIKES, 40).tracks} == {None}

    @pytest.mark.parametrize("k", [1, 6, 20])
    def test_k_cuts_the_same_list(self, recommender: Recommender, k: int) -> None:
        for user in ("u3", ONLY_DISLIKES, "nobody"):
            assert ids(recommender.recommend(user, k)) == ids(recommender.recommend(user, 200))[:k]
        assert ids(recommender.similar("t3", k)) == ids(recommender.similar("t3", 200))[:k]
        assert (
            ids(recommender.recommend_from_tracks(["t3"], k)) == ids(recommender.recommend_from_tracks(["t3"], 39))[:k]
        )

    @pytest.mark.parametrize("k", [0, -1, 201])
    def test_an_impossible_k_is_refused(self, recommender: Recommender, k: int) -> None:
        with pytest.raises(ConfigError, match=f"k is {k}"):
            recommender.recommend("u0", k)
        with pytest.raises(ConfigError, match=f"k is {k}"):
            recommender.similar("t0", k)
        with pytest.raises(ConfigError, match=f"k is {k}"):
            recommender.recommend_from_tracks(["t0"], k)
        with pytest.raises(ConfigError, match=f"k is {k}"):
            recommender.audience("t0", k)

    def test_a_batch_is_its_users_one_by_one(self, recommender: Recommender) -> None:
        batch = recommender.rank(ALL_USERS, N_TRACKS)
        reasons = recommender.reasons(ALL_USERS, batch)
        for row, user in enumerate(ALL_USERS):
            alone = recommender.recommend(user, 200, **PLAIN_POPULAR if user == ONLY_DISLIKES else {})
            n = len(alone.tracks)
            assert [f"t{item}" for item in batch.items[row, :n]] == ids(alone)
            assert (batch.items[row, n:] == NO_ITEM).all()
            np.testing.assert_allclose(batch.scores[row, :n], scores(alone), rtol=1e-5)
            named = [None if reason == NO_ITEM else f"t{reason}" for reason in reasons[row, :n]]
            assert named == [track.reason_track_id for track in alone.tracks]

    def test_scores_are_those_of_the_lists_and_order_alike(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        _, barred = heard_and_barred(tiny_catalogue)
        table = recommender.score(ALL_USERS, ALL_TRACKS)
        assert table.shape == (30, 40)
        assert table.dtype == np.float32
        assert np.isfinite(table).all()
        for row, user in enumerate(ALL_USERS):
            found = recommender.recommend(user, 200)
            of_list = [float(table[row, int(track[1:])]) for track in ids(found)]
            np.testing.assert_allclose(of_list, scores(found), rtol=1e-4, atol=1e-5)
            assert barred[user] <= set(ALL_TRACKS)  # disliked and heard tracks have scores too
        assert len(np.unique(table[0].round(5))) > 20

    def test_scores_stand_in_the_order_of_the_arguments(self, recommender: Recommender) -> None:
        table = recommender.score(ALL_USERS, ALL_TRACKS)
        users, tracks = ["u7", "u0", "u7"], [COLD, "t3", "t0", "t3"]
        np.testing.assert_allclose(
            recommender.score(users, tracks), table[np.ix_([7, 0, 7], [39, 3, 0, 3])], rtol=1e-4, atol=1e-5
        )
        assert recommender.score([], tracks).shape == (0, 4)
        assert recommender.score(users, []).shape == (3, 0)

    @pytest.mark.parametrize(
        ("users", "tracks", "named"), [(["u0", "who"], ["t0"], "'who'"), (["u0"], ["t0", "what"], "'what'")]
    )
    def test_an_unknown_id_is_named(
        self, recommender: Recommender, users: list[str], tracks: list[str], named: str
    ) -> None:
        with pytest.raises(NotFoundError, match=named):
            recommender.score(users, tracks)

    def test_unknown_tracks_are_not_found(self, recommender: Recommender) -> None:
        for ask in (recommender.similar, recommender.track, recommender.audience):
            with pytest.raises(NotFoundError, match="'what'"):
                ask("what")
        with pytest.raises(NotFoundError, match="'what'"):
            recommender.recommend_from_tracks(["t0", "what"])
        with pytest.raises(DataError, match="0 tracks"):
            recommender.recommend_from_tracks([])

    def test_a_user_nobody_knows_gets_what_is_popular(self, recommender: Recommender) -> None:
        found, other = recommender.recommend("nobody", 200), recommender.recommend("", 200)
        assert found.source == other.source == "popular"
        assert ids(found) == ids(other)
        assert sorted(ids(found)) == sorted(ALL_TRACKS)
        listeners = recommender.plays.n_listeners[[int(track[1:]) for track in ids(found)]]
        assert listeners[0] == listeners.max()
        plain = recommender.recommend("nobody", 200, **PLAIN_POPULAR)
        assert scores(plain) == sorted(scores(plain), reverse=True)
        own = ids(recommender.recommend(ONLY_DISLIKES, 200, **PLAIN_POPULAR))
        assert own == [track for track in ids(plain) if track != "t0"]

    @pytest.mark.parametrize("user", ["nobody", ONLY_DISLIKES])
    def test_popular_tracks_are_by_many_artists(self, recommender: Recommender, user: str) -> None:
        """Of six artists at most two tracks each come first, then the rest: a cap nobody asked for cuts nothing off."""
        found = recommender.recommend(user, 200)
        artists = [track.about["artist"] for track in found.tracks]
        assert sorted(artists[:12]) == sorted([*set(artists)] * 2)
        assert scores(found)[12:] == sorted(scores(found)[12:], reverse=True)
        plain = [track.about["artist"] for track in self._plain(recommender, user)]
        assert max(Counter(artists[:6]).values()) < max(Counter(plain[:6]).values())
        assert len(recommender.recommend(user, 200, max_per_artist=1).tracks) == 6, "one that was asked for does"

    @staticmethod
    def _plain(recommender: Recommender, user: str) -> list[RankedTrack]:
        return recommender.recommend(user, 200, **PLAIN_POPULAR).tracks

    def test_diversity_shows_more_kinds_and_keeps_what_is_best_first(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        def kinds(diversity: float) -> int:
            return len({tiny_catalogue.genre_of(t) for t in ids(recommender.recommend("u1", 6, diversity=diversity))})

        plain = recommender.recommend("u1", 200)
        assert ids(recommender.recommend("u1", 200, diversity=0.0)) == ids(plain)
        assert (kinds(0.0), kinds(0.7)) == (1, 3)
        varied = recommender.recommend("u1", 200, diversity=0.7)
        assert sorted(ids(varied)) == sorted(ids(plain))
        assert ids(varied)[0] == ids(plain)[0]
        assert {t.track_id: (t.score, t.reason_track_id) for t in varied.tracks} == {
            t.track_id: (t.score, t.reason_track_id) for t in plain.tracks
        }
        assert ids(recommender.recommend("u1", 5, diversity=0.7)) == ids(varied)[:5]
        both = recommender.recommend("u1", 200, diversity=0.7, max_per_artist=1)
        assert len({track.about["artist"] for track in both.tracks}) == len(both.tracks) == 6

    @pytest.mark.parametrize(("asked", "told"), [({"max_per_artist": 0}, "max_per_artist is 0"),
                                                 ({"diversity": 1.5}, "diversity is 1.5")])  # fmt: skip
    def test_an_impossible_variety_is_refused(self, recommender: Recommender, asked: Any, told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            recommender.recommend("u0", 3, **asked)

    def test_planted_tastes_are_met(self, recommender: Recommender, tiny_catalogue: TinyCatalogue) -> None:
        hits = [
            tiny_catalogue.genre_of(track) == tiny_catalogue.taste_of(user)
            for user in ALL_USERS[:28]
            for track in ids(recommender.recommend(user, 6))
        ]
        assert np.mean(hits) > 0.9

    def test_a_track_that_nobody_has_played_is_for_those_of_its_taste(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        ranks = {user: ids(recommender.recommend(user, 200)).index(COLD) for user in ALL_USERS[:28]}
        own = tiny_catalogue.genre_of(COLD)
        theirs = [rank for user, rank in ranks.items() if tiny_catalogue.taste_of(user) == own]
        others = [rank for user, rank in ranks.items() if tiny_catalogue.taste_of(user) != own]
        assert max(theirs) < min(others)

    @pytest.mark.parametrize("space", ["hybrid", "content", "taste"])
    def test_similar_tracks_never_hold_the_track_itself(self, recommender: Recommender, space: str) -> None:
        known = ALL_TRACKS if space != "taste" else sorted(set(ALL_TRACKS) - {COLD})
        for track in ("t0", "t17", "t38"):
            found = recommender.similar(track, 200, space)  # type: ignore[arg-type]
            assert sorted(ids(found)) == sorted(set(known) - {track})
            assert scores(found) == sorted(scores(found), reverse=True)
            assert max(map(abs, scores(found))) <= 1 + 1e-5
            assert found.source == "neighbours"

    def test_similar_tracks_are_of_the_same_kind(self, recommender: Recommender, tiny_catalogue: TinyCatalogue) -> None:
        genre = tiny_catalogue.genre_of
        same = [genre(other) == genre(track) for track in ALL_TRACKS for other in ids(recommender.similar(track, 5))]
        assert np.mean(same) > 0.9

    def test_spaces_without_vectors_are_told(self, recommender: Recommender) -> None:
        assert recommender.spaces == ["content", "taste", "hybrid"]
        with pytest.raises(NoSpaceError, match=r"'sound'.*content, taste, hybrid"):
            recommender.similar("t0", space="sound")
        with pytest.raises(NoSpaceError, match=r"'next'.*content, taste, hybrid"):
            recommender.similar("t0", space="next")  # what was played when told nothing
        with pytest.raises(NoSpaceError, match=r"'t39'.*'taste'"):
            recommender.similar(COLD, space="taste")
        with pytest.raises(ConfigError, match="'smell'"):
            recommender.similar("t0", space="smell")  # type: ignore[arg-type]

    def test_tracks_to_start_from_are_left_out_and_set_the_taste(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        started = ["t4", "t10", "t4"]
        found = recommender.recommend_from_tracks(started, 200)
        assert sorted(ids(found)) == sorted(set(ALL_TRACKS) - set(started))
        assert scores(found) == sorted(scores(found), reverse=True)
        assert found.source == "tracks"
        assert {track.reason_track_id for track in found.tracks} <= set(started)
        assert np.mean([tiny_catalogue.genre_of(track) == "metal" for track in ids(found)[:6]]) > 0.8
        assert len(recommender.recommend_from_tracks([COLD], 5).tracks) == 5
        assert recommender.recommend_from_tracks(ALL_TRACKS, 5).tracks == []

    def test_a_users_own_history_gives_much_the_same_list(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        heard, _ = heard_and_barred(tiny_catalogue)
        shared = []
        for user in ALL_USERS[:28]:
            folded = ids(recommender.recommend_from_tracks(sorted(heard[user]), 8))
            shared.append(len(set(folded) & set(ids(recommender.recommend(user, 8)))) / 8)
        assert np.mean(shared) > 0.75

    def test_an_artist_appears_at_most_so_often(self, recommender: Recommender) -> None:
        everything = recommender.recommend("u0", 200)
        seen: dict[str, int] = {}
        expected = []
        for track in everything.tracks:
            artist = track.about["artist"]
            seen[artist] = seen.get(artist, 0) + 1
            if seen[artist] <= 2:
                expected.append(track.track_id)
        found = recommender.recommend("u0", 9, max_per_artist=2)
        assert ids(found) == expected[:9]
        assert [track.rank for track in found.tracks] == list(range(1, 10))

    def test_what_is_known_of_a_track_comes_along_or_not(self, recommender: Recommender) -> None:
        first = recommender.recommend("u0", 1).tracks[0]
        n = int(first.track_id[1:])
        genres = [("ambient", "metal", "jazz")[n % 3]]
        assert first.about == {
            "title": f"Title {n}",
            "artist": f"Artist {n % 3}-{n % 2}",
            "genres": genres,
            "year": 1980 + n,
        }
        assert recommender.recommend("u0", 1, describe=False).tracks[0].about == {}
        cold = recommender.track(COLD)
        assert (cold["track_id"], cold["is_cold"], cold["plays"]) == (COLD, True, 0)
        assert recommender.track("t4")["is_cold"] is False

    def test_the_audience_of_a_track_are_those_of_its_taste_who_have_not_heard_it(
        self, recommender: Recommender, tiny_catalogue: TinyCatalogue
    ) -> None:
        heard, barred = heard_and_barred(tiny_catalogue)
        for track in (COLD, "t1", "t0"):
            found = recommender.audience(track, 200)
            users = [user for user, _ in found]
            open_users = {user for user in ALL_USERS if heard[user] and track not in heard[user] | barred[user]}
            assert set(users) == open_users
            margins = [margin for _, margin in found]
            assert margins == sorted(margins, reverse=True)
            own = [tiny_catalogue.taste_of(user) == tiny_catalogue.genre_of(track) for user in users]
            n_own = sum(own)
            assert np.mean(own[:n_own]) > 0.8
        user, margin = recommender.audience(COLD, 1)[0]
        twentieth = recommender.recommend(user, 20).tracks[-1].score
        assert margin == pytest.approx(float(recommender.score([user], [COLD])[0, 0]) - twentieth, abs=1e-4)

    def test_each_part_can_rank_alone(self, recommender: Recommender, tiny_catalogue: TinyCatalogue) -> None:
        assert recommender.parts == ("als", "wide", "mapped", "lightfm", "labels", "content", "popularity")
        for part in recommender.parts[:5]:
            items = recommender.rank(ALL_USERS[:28], 4, part=part).items
            hits = [item % 3 == user % 3 for user, row in enumerate(items) for item in row]
            assert np.mean(hits) > 0.6, part
        with pytest.raises(ConfigError, match="'bpr'"):
            recommender.rank(["u0"], 3, part="bpr")

    def test_the_status_counts(self, recommender: Recommender) -> None:
        status = recommender.status()
        assert (status["n_tracks"], status["n_users"], status["n_uploads"]) == (40, 30, 0)
        assert status["spaces"] == ["content", "taste", "hybrid"]
