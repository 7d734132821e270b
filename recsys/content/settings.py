"""Settings of the content towers, apart from their code: reading a settings file must not load torch."""

from pydantic import Field

from recsys.util.settings import Settings


class TaskSettings(Settings):
    """``[audio.tasks]`` and ``[audio.head.tasks]``: weights of the costs, and how many classes are told apart."""

    genre: float = Field(default=1.0, ge=0)
    artist: float = Field(default=0.5, ge=0)
    tags: float = Field(default=0.0, ge=0)
    factors: float = Field(default=1.0, ge=0)
    year: float = Field(default=0.0, ge=0)  # off, as the next: neighbours became less alike
    popularity: float = Field(default=0.0, ge=0)
    max_genres: int = Field(default=100, ge=2)  # the most frequent ones
    max_tags: int = Field(default=100, ge=1)  # likewise
    max_artists: int = Field(default=2000, ge=2)


class FusionTaskSettings(TaskSettings):
    """``[hybrid.content.tasks]``: the fusion's own defaults, measured in ``docs/research/findings-content.md``."""

    tags: float = Field(default=0.5, ge=0)  # neighbours share more tags; not measured for the audio network
