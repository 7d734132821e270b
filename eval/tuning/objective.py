"""One trial of ``eval.tuning.tune_hybrid``: settings in, the hybrid's recall by protocol and their common value out.

    tracks, Split (its train)        ->  heard  ->  tracks with sound vectors, once a split
    settings, (Split, tracks) pairs  ->  judge  ->  fit on each split's train  ->  value, recalls

The value is the recall where there is one protocol, else the mean over them of recall / the recall of the base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from eval.baselines.simple import Fitted, Part
from eval.checkpoint import Partial
from eval.metrics.panels import panels_of
from eval.split_run import Fit
from eval.splitting.leakage import assert_no_leak
from eval.splitting.split import Split
from eval.tuning.trials import mean_recall
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.types import TRACKS_SCHEMA, Float32, Tags, Tracks
from recsys.util.progress import Progress, Silent


@dataclass(eq=False)
class Fitting:
    """What trials share.

    ``material`` pairs each split with the tracks that its fits are given; ``base`` has the recalls of the base settings
    by protocol, None until the first trial has found them.
    """

    fit: Fit
    tags: Tags | None
    settings: RunSettings  # the base
    k: int
    max_users: int
    progress: Progress
    material: Sequence[tuple[Split, Tracks]] = ()
    base: Mapping[str, float] | None = None

    def judge(self, settings: RunSettings) -> tuple[float, Mapping[str, float]]:
        """Fit and judge; settings other than the base's under which learning diverges are worth nothing.

        Raises:
            DataError: the base settings find nothing to compare with, or a fit saw what is held out.
        """
        recalls: dict[str, float] = {}
        for split, tracks in self.material:
            try:
                # bars of every fit would bury the one of the trials
                fitted = self.fit(tracks, split.train, self.tags, settings, progress=Silent())
            except (ValueError, ArithmeticError) as error:  # so LightFM, LAPACK and our own checks say it
                if self.base is None:
                    raise
                self.progress.detail(f"a trial is worth nothing, as its fit on {split.protocol} failed: {error}")
                return 0.0, {}
            recalls[split.protocol] = self._recall(fitted, split)
        if self.base is None:
            self.base = self._begin(recalls)
        if len(recalls) == 1:
            return next(iter(recalls.values())), recalls
        return float(np.mean([recall / self.base[name] for name, recall in recalls.items()])), recalls

    def heard(self, tracks: Tracks, split: Split, kept: Partial) -> Tracks:
        """The tracks sound vectors, from a network that the base settings train on the split's training listens.

        The vectors are kept; tracks that came with vectors, or have no audio, stay as they are.
        """
        frame = tracks.frame
        if frame["vector"].count() or not frame["path"].count():
            return tracks
        name = f"sound-{split.protocol}"
        found = kept.get(name, lambda arrays, _: (arrays["track_ids"], arrays["vectors"]))
        if found is None:
            with self.progress.stage(f"listen: {split.protocol}") as stage:
                fitted = self.fit(tracks, split.train, self.tags, self.settings, progress=self.progress)
                assert_no_leak(fitted.plays, split)
                rows, vectors = fitted.sound
                stage.done(f"{len(rows):,} tracks heard once for all trials")
            found = np.array([fitted.plays.track_ids[row] for row in rows], dtype=np.str_), vectors
            kept.put(name, {"track_ids": found[0], "vectors": found[1]}, {})
        return _with_vectors(tracks, *found)

    def _recall(self, fitted: Fitted, split: Split) -> float:
        assert_no_leak(fitted.plays, split)
        panels = panels_of(split, fitted.plays, self.max_users)
        panel = next(panel for panel in panels if panel.name == split.protocol)  # cold tracks among themselves
        ranker = Part(fitted, panel.heard.user_ids, None)
        return mean_recall(ranker, panel.user_rows, panel.held_out, panel.candidates, self.k)

    def _begin(self, recalls: dict[str, float]) -> dict[str, float]:
        nothing = [name for name, recall in recalls.items() if not recall > 0]
        if nothing and len(recalls) > 1:
            raise DataError(
                f"the base settings reach recall@{self.k} 0 on {' and '.join(nothing)}, and a ratio to that says "
                "nothing; give more listens or facts of the tracks, or tune by one protocol alone"
            )
        return recalls


def _with_vectors(tracks: Tracks, track_ids: NDArray[Any], vectors: Float32) -> Tracks:
    """Put vectors (m, d) beside their tracks; audio paths go, so that nothing is listened to again."""
    schema = {"track_id": TRACKS_SCHEMA["track_id"], "vector": TRACKS_SCHEMA["vector"]}
    columns = pl.DataFrame({"track_id": track_ids.tolist(), "vector": vectors.tolist()}, schema)
    joined = tracks.frame.drop("vector").join(columns, on="track_id", how="left", maintain_order="left")
    silent = joined.with_columns(path=pl.lit(None, TRACKS_SCHEMA["path"]))
    return Tracks(silent.select(TRACKS_SCHEMA.names()))
