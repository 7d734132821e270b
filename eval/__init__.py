"""Judges the engine on listens it has not seen; stands on ``recsys``, which knows nothing of it."""
