"""The base of every settings class: frozen, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings of one step, kept beside that step; ``recsys.config`` joins them into one tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")
