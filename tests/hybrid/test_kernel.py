"""The kernel of the map to factors: likeness against its formula, and how features are cut and told apart."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.hybrid import kernel as kernels
from recsys.hybrid.kernel import Features, Kernel
from recsys.types import Float32

LABELS = np.array(
    [
        [2.0, 0, 0, 1, 0],
        [0, 0.5, 0, 0, 0],
        [0, 0, 0, 0, 0],  # of this track nothing is known, not even its sound
        [2.0, 0, 3.5, 1, 0],
        [0, 0.5, 0, 0, 1],
        [0, 0, 0, 0, 0],  # and of this one only the sound
        [4.0, 0, 0, 2, 0],  # the direction of the first, twice as long
    ]
)
SOUND = np.array([[1, -1, 0.5], [0.2, 0, 0], [0, 0, 0], [-2, 1, 0], [0, 0, 0], [1, -1, 0.5], [0.3, 2, -1]])


def features(with_sound: bool = True) -> Features:
    sound = SOUND if with_sound else SOUND[:, :0]
    return Features(csr_matrix(LABELS.astype(np.float32)), sound.astype(np.float32), np.arange(7) % 3 - 1)


def made_features(n: int, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 6)) < 0.4) * rng.uniform(0.5, 3, (n, 6))
    return Features(csr_matrix(labels.astype(np.float32)), rng.normal(size=(n, 2)).astype(np.float32), np.full(n, -1))


def by_the_formula(one: int, other: int, with_sound: bool) -> float:
    """0.5 a.b / mean |a|^2 + 0.3 e^(-l) + e^(-d) + 0.2 e^(-s / 3) + 0.5 e^(-(l + d + s / 6)), in float64.

    l, of how much is known: the squared distance of lengths, log sums and log numbers of labels, each standardised,
    over 8; d: the squared distance of the labels' directions, zeros where there are none; s: that of sound, a
    dimension.
    """
    lengths = np.sqrt((LABELS**2).sum(axis=1))
    known = np.stack([lengths, np.log1p(LABELS.sum(axis=1)), np.log1p((LABELS > 0).sum(axis=1))], axis=1)
    standard = (known - known.mean(axis=0)) / known.std(axis=0)
    directions = LABELS / np.maximum(lengths, 1e-9)[:, None]
    length = ((standard[one] - standard[other]) ** 2).sum() / 8
    direction = ((directions[one] - directions[other]) ** 2).sum()
    sound = ((SOUND[one] - SOUND[other]) ** 2).sum() / 3
    linear = LABELS[one] @ LABELS[other] / (LABELS**2).sum(axis=1).mean()
    plain = 0.5 * linear + 0.3 * np.exp(-length) + np.exp(-direction)
    if not with_sound:
        return float(plain + 0.5 * np.exp(-(length + direction)))
    return float(plain + 0.2 * np.exp(-sound / 3) + 0.5 * np.exp(-(length + direction + sound / 6)))


@pytest.mark.parametrize("with_sound", [True, False])
def test_likeness_is_that_of_its_formula(with_sound: bool) -> None:
    landmarks = np.array([0, 2, 3, 5, 6])
    found = Kernel.of(features(with_sound), landmarks)(features(with_sound))
    expected = [[by_the_formula(one, other, with_sound) for other in landmarks] for one in range(7)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_among_the_landmarks_likeness_is_symmetric_and_no_less_than_zero_in_any_direction() -> None:
    some = made_features(40)
    found = Kernel.of(some, np.arange(40))(some)
    np.testing.assert_allclose(found, found.T, atol=1e-5)
    assert np.linalg.eigvalsh(found.astype(np.float64)).min() > -1e-4


def test_scales_are_learned_from_all_tracks_and_not_from_landmarks_alone() -> None:
    some = made_features(30)
    few, all_of_them = Kernel.of(some, np.array([4, 9])), Kernel.of(some, np.arange(30))
    np.testing.assert_allclose(few(some), all_of_them(some)[:, [4, 9]], atol=1e-6)
    other = made_features(1, seed=1)
    np.testing.assert_allclose(few(other), all_of_them(other)[:, [4, 9]], atol=1e-6)


def test_nothing_known_is_alike_to_nothing_known_and_sound_apart_still_tells() -> None:
    found = Kernel.of(features(), np.arange(7))(features())
    silent = Kernel.of(features(with_sound=False), np.arange(7))(features(with_sound=False))
    assert silent[2, 5] == pytest.approx(0.3 + 1.0 + 0.5, abs=1e-6)  # all but the linear term, which is 0
    assert found[2, 5] < found[2, 2] == pytest.approx(0.3 + 1.0 + 0.2 + 0.5, abs=1e-5)


@pytest.mark.parametrize("labels", [np.zeros((4, 3)), np.zeros((4, 0)), np.ones((4, 2))])
def test_labels_that_tell_no_track_from_another_leave_all_alike(labels: np.ndarray) -> None:
    same = Features(csr_matrix(labels.astype(np.float32)), np.zeros((4, 0), np.float32), np.full(4, -1))
    found = Kernel.of(same, np.array([0, 3]))(same)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, found[0, 0])


# ---- features ----------------------------------------------------------------------------------------------------


def test_rows_are_taken_in_the_order_asked_for() -> None:
    taken = features().take(np.array([6, 0, 3]))
    assert len(taken) == 3
    assert taken.labels.toarray().tolist() == LABELS[[6, 0, 3]].tolist()
    np.testing.assert_allclose(taken.sound, SOUND[[6, 0, 3]], rtol=1e-6)
    assert taken.artist.tolist() == [-1, -1, -1]
    assert features().take(slice(1, 3)).artist.tolist() == [0, 1]


def test_blocks_are_the_whole_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    some = made_features(11)
    whole = Kernel.of(some, np.array([1, 7]))(some)
    monkeypatch.setattr(kernels, "BLOCK", 4)
    blocks = list(some.blocks())
    assert [(rows.start, rows.stop, len(block)) for rows, block in blocks] == [(0, 4, 4), (4, 8, 4), (8, 11, 3)]
    found: Float32 = np.concatenate([Kernel.of(some, np.array([1, 7]))(block) for _, block in blocks])
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_the_first_of_every_kind_of_track_is_found() -> None:
    labels = np.array([[1, 0], [0, 2], [1, 0], [1, 0], [0, 2], [0, 0], [1e-3, 2]], np.float32)
    sound = np.array([[0], [1], [0], [0.5], [1], [0], [1]], np.float32)
    some = Features(csr_matrix(labels), sound, np.arange(7))  # the artist makes no kind of its own
    assert some.distinct().tolist() == [0, 1, 3, 5, 6]
    assert made_features(30).take(np.arange(60) // 2).distinct().tolist() == list(range(0, 60, 2))
    nothing = Features(csr_matrix((5, 0), dtype=np.float32), np.zeros((5, 0), np.float32), np.arange(5))
    assert nothing.distinct().tolist() == [0]
