"""The blend: several inner products joined into one user vector and one item vector.

    parts: als, wide, mapped, lightfm, labels, content, popularity, new  ->  join  ->  items (n_items, d), users (n, d)

Parts stand side by side in the columns, so that the joint score is again an inner product: it serves exact ranking,
nearest-neighbour search, folding users in, audiences and live uploads alike. A part's scores are divided, for each
user, by their standard deviation over the catalogue, so that a weight means the same for every user and part.
Weights are applied to the user's side when ranking. What a part says of a track that nobody has played is worth more or
less than what it says of the others: there its item vectors are multiplied once more, and the weight of the part
``new``, 1 for such tracks and 0 for the others, is the level at which they stand. All are learned in
``recsys.hybrid.weights``.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.types import Float32
from recsys.util.settings import Settings
from recsys.util.topk import unit_rows

Fold = Literal["solve", "mean", "constant", "level"]
POPULARITY, NEW = "popularity", "new"
ROUNDING = 1e-5  # spread of scores, against items of length about 1, that float32 makes of nothing


class BlendSettings(Settings):
    """``[blend]`` in the run's TOML file. A weight that is given is kept, the others are learned."""

    als: float | None = Field(default=None, ge=0)
    wide: float | None = Field(default=None, ge=0)
    mapped: float | None = Field(default=None, ge=0)
    lightfm: float | None = Field(default=None, ge=0)
    labels: float | None = Field(default=None, ge=0)
    content: float | None = Field(default=None, ge=0)
    popularity: float | None = Field(default=None, ge=0)
    by_time: bool = True  # where times are known the latest share of the listens is held out, not a random one
    validation_users: int = Field(default=1000, ge=0)
    validation_share: float = Field(default=0.2, ge=0, lt=1)  # of the tracks of each of these users
    validation_tracks: float = Field(default=0.1, ge=0, lt=1)  # of the played tracks, which lose all plays
    # what played tracks may lose of their recall@20 so that new ones are shown among them
    cost_of_new: float = Field(default=0.005, ge=0, lt=1)
    # of the first 20 places of all users together, for tracks that nobody has played, whatever that costs the others
    share_of_new: float | None = Field(default=None, ge=0, le=1)

    def given(self) -> dict[str, float | None]:
        """Weights by part name, None where they are to be learned; new tracks have no level until that is learned."""
        names = ("als", "wide", "mapped", "lightfm", "labels", "content", POPULARITY)
        return {**{name: getattr(self, name) for name in names}, NEW: 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One model as an inner product, and how a new user is folded into it.

    ``user_vectors`` (n_users, f) and ``item_vectors`` (n_items, f), zeros where the part knows nothing. ``fold``:
    'solve' = ridge on the played items (``gram`` (f, f) and ``l2`` in the units of ``item_vectors``), 'mean' = weighted
    mean of their vectors, 'constant' = 1 for everybody, 'level' = 1 for everybody, whatever the spread of its scores.
    ``bias``: the last column is an item bias against a 1. ``confidence_scale`` is that of the plays in a 'solve'.
    """

    name: str
    user_vectors: Float32
    item_vectors: Float32
    fold: Fold
    gram: Float32 | None = None
    l2: float = 0.0
    bias: bool = False
    confidence_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a part stands in the joint vectors, its weight, and what folding in needs.

    ``scale`` is what the part's item vectors were multiplied by, ``new`` what those of unplayed tracks were besides;
    ``norm`` is the usual length of a user vector there.
    """

    name: str
    start: int
    stop: int
    weight: float
    scale: float
    norm: float
    l2: float
    fold: Fold
    bias: bool
    confidence_scale: float
    new: float

    @property
    def personal(self) -> bool:
        """Whether the part tells users apart."""
        return self.fold in ("solve", "mean")


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """The layout with, for each part, the covariance (f, f) of its item vectors and the gram of its solve."""

    parts: tuple[Layout, ...]
    covariances: tuple[Float32, ...]
    grams: tuple[Float32 | None, ...]

    @property
    def dim(self) -> int:
        """Width of the joint vectors."""
        return self.parts[-1].stop if self.parts else 0

    def weights(self) -> Float32:
        """The weight of each column's part: (d,)."""
        return np.concatenate([np.full(p.stop - p.start, p.weight, np.float32) for p in self.parts])

    def queries(self, user_vectors: Float32, has_plays: NDArray[np.bool_], part: str | None = None) -> Float32:
        """Weigh user vectors (n, d) for ranking; users without plays, and the part 'popularity', rank by popularity.

        With ``part`` that part ranks alone.

        Raises:
            ConfigError: there is no such part.
        """
        mask = self.weights() if part is None else self._only(part)
        weighted = np.asarray(user_vectors * mask, dtype=np.float32)
        if part != POPULARITY and not has_plays.all():
            popular = next((p for p in self.parts if p.name == POPULARITY), None)
            weighted[~has_plays] = 0
            if popular is not None:
                weighted[~has_plays, popular.start : popular.stop] = 1
        return weighted

    def _only(self, part: str) -> Float32:
        layout = next((p for p in self.parts if p.name == part), None)
        if layout is None:
            raise ConfigError(f"there is no part {part!r} in this blend; choose one of {[p.name for p in self.parts]}")
        mask = np.zeros(self.dim, dtype=np.float32)
        mask[layout.start : layout.stop] = 1
        return mask

    def as_played(self, item_vectors: Float32) -> Float32:
        """Copy item vectors (n, d), those of unplayed tracks brought back to what each part says of them."""
        vectors = np.array(item_vectors, dtype=np.float32)
        level = next((p.start for p in self.parts if p.name == NEW), None)
        if level is not None:
            new = np.flatnonzero(vectors[:, level])
            for part in self.parts:
                vectors[new, part.start : part.stop] /= np.float32(part.new or 1.0)
        return vectors

    def likeness(self, item_vectors: Float32) -> Float32:
        """Unit vectors (n, d') in which the cosine of two items weighs the parts as the ranking does.

        Popularity and biases say how liked a track is, not what it is like, and are left out.
        """
        item_vectors = self.as_played(item_vectors)
        columns = []
        for part, weight in self._weighed():
            stop = part.stop - (1 if part.bias else 0)
            columns.append(item_vectors[:, part.start : stop] * np.float32(np.sqrt(weight)))
        joined = np.hstack(columns) if columns else np.zeros((len(item_vectors), 1), np.float32)
        return unit_rows(joined)

    def likeness_factors(self) -> tuple[NDArray[np.intp], Float32, Float32]:
        """Say of what ``likeness`` is made before it is scaled to unit length, for who takes products with it.

        Returns:
            The columns (d',) of item vectors, what each is multiplied by, and what in tracks that are ``unplayed``.
        """
        columns, factors, new = list[NDArray[np.intp]](), list[Float32](), list[Float32]()
        for part, weight in self._weighed():
            columns.append(np.arange(part.start, part.stop - (1 if part.bias else 0)))
            factors.append(np.full(len(columns[-1]), np.sqrt(weight), np.float32))
            new.append(factors[-1] / np.float32(part.new or 1.0))
        if not columns:
            return np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.float32)
        return np.concatenate(columns), np.concatenate(factors), np.concatenate(new)

    def unplayed(self, item_vectors: Float32) -> NDArray[np.bool_]:
        """Mark those of item vectors (n, d) that stand at the level of tracks that nobody has played."""
        level = next((p.start for p in self.parts if p.name == NEW), None)
        return np.zeros(len(item_vectors), bool) if level is None else np.asarray(item_vectors[:, level] != 0)

    def _weighed(self) -> list[tuple[Layout, float]]:
        personal = [(part, part.weight) for part in self.parts if part.personal]
        # where popularity alone ranks, tracks are still alike by what is known of them
        return [(part, weight) for part, weight in personal if weight > 0] or [(part, 1.0) for part, _ in personal]

    def with_weights(self, weights: dict[str, float]) -> "Blend":
        """Replace the weights by those given by part name."""
        parts = tuple(replace(p, weight=float(weights[p.name])) for p in self.parts)
        return Blend(parts, self.covariances, self.grams)

    def to_json(self) -> list[dict[str, Any]]:
        """The layout as plain values; the matrices are kept as arrays."""
        return [asdict(p) for p in self.parts]


def join(
    parts: list[Part],
    weights: dict[str, float],
    n_listeners: NDArray[np.int32],
    new: dict[str, float] | None = None,
) -> tuple[Blend, Float32, Float32]:
    """Put parts side by side.

    Args:
        parts: all over the same users and items.
        weights: by part name.
        new: by part name, what item vectors of tracks without listeners are multiplied by; 1 where it names none.
        n_listeners: (n_items,), the catalogue's statistics are taken over items with listeners, where two or more have.

    Returns:
        The blend, user vectors (n_users, d) each part of which has scores of standard deviation 1, and item vectors
        (n_items, d) each part of which has rows of mean square length 1.
    """
    unplayed = n_listeners == 0
    known = ~unplayed
    if known.sum() < 2:  # of one track there is no spread to speak of
        known = np.ones(len(n_listeners), dtype=bool)
    layouts, covariances, grams, users, items = [], [], [], [], []
    start = 0
    for part in parts:
        square = float((part.item_vectors[known] ** 2).sum(axis=1).mean())
        scale = 1 / np.sqrt(square) if square > 0 else 1.0
        vectors = np.asarray(part.item_vectors * np.float32(scale), dtype=np.float32)
        times = (new or {}).get(part.name, 1.0)
        vectors[unplayed] *= np.float32(times)
        covariance = np.atleast_2d(np.cov(vectors[known].T, bias=True)).astype(np.float32)
        lengths = np.sqrt((part.user_vectors[:, : -1 if part.bias else None] ** 2).sum(axis=1))
        norm = float(lengths[lengths > 0].mean()) if (lengths > 0).any() else 1.0
        stop = start + vectors.shape[1]
        layouts.append(
            Layout(
                part.name,
                start,
                stop,
                weights[part.name],
                scale,
                norm,
                part.l2 * scale**2,
                part.fold,
                part.bias,
                part.confidence_scale,
                times,
            )
        )
        covariances.append(covariance)
        grams.append(None if part.gram is None else np.asarray(part.gram * scale**2, dtype=np.float32))
        users.append(part.user_vectors if part.fold == "level" else calibrated(part.user_vectors, covariance))
        items.append(vectors)
        start = stop
    blend = Blend(tuple(layouts), tuple(covariances), tuple(grams))
    return blend, np.hstack(users), np.hstack(items)


def calibrated(user_vectors: Float32, covariance: Float32) -> Float32:
    """Divide each user vector by the standard deviation of its scores over the catalogue: sqrt(u' C u).

    Where the scores do not differ but for rounding, as popularity where all were played alike, the vector becomes zero.
    """
    spread = np.sqrt(np.maximum(np.einsum("nf,nf->n", user_vectors @ covariance, user_vectors), 0))
    differ = spread > ROUNDING * np.linalg.norm(user_vectors, axis=1)
    return np.asarray(user_vectors * (differ / np.where(differ, spread, 1))[:, None], dtype=np.float32)


def profile_weights(counts: csr_matrix) -> csr_matrix:
    """Weigh the played items of a user for a mean: log(1 + plays), rows adding up to 1."""
    weighted = counts.copy().astype(np.float32)
    weighted.data = np.log1p(weighted.data)
    sums = np.asarray(weighted.sum(axis=1)).ravel()
    weighted.data /= np.repeat(np.maximum(sums, 1e-12), np.diff(weighted.indptr)).astype(np.float32)
    return weighted
