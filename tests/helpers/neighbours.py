"""Neighbours of a track: from stored bytes, and by comparing with every track."""

from recsys.recommender import Recommender
from recsys.serving.fast_path import FastPath
from recsys.types import Space
from recsys.v1 import recommender_pb2 as pb


def stored_answer(answers: FastPath, track: str, space: str, k: int) -> list[tuple[str, float]] | None:
    found = answers.similar_tracks(pb.SimilarTracksRequest(track_id=track, space=space, k=k).SerializeToString())
    if found is None:
        return None
    response = pb.SimilarTracksResponse.FromString(found[0])
    assert (response.generation, response.source, len(response.tracks)) == (answers.generation, "neighbours", k)
    return [(line.track_id, line.score) for line in response.tracks]


def whole_pass(recommender: Recommender, track: str, space: Space, k: int) -> list[tuple[str, float]] | None:
    """What comparing with every track gives; None of a track that is not shown, or has no vector there."""
    lists = recommender._lists
    row = lists.catalogue.find(track)
    if row < 0 or lists.catalogue.unit_vector(row, space) is None:
        return None
    return lists.nearest(row, track, k, space)
