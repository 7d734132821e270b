"""Settings of an evaluation, and how a command line says them."""

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from eval.representation.settings import RepresentationSettings
from eval.splitting.split import PROTOCOLS, Protocol, SplitSettings
from recsys.errors import ConfigError
from recsys.util.settings import Settings

REPRESENTATION: Literal["representation"] = "representation"


class EvaluationSettings(Settings):
    """What is judged and how; ``recsys evaluate`` sets what it has options for."""

    protocols: tuple[Protocol | Literal["representation"], ...] = Field(default=PROTOCOLS, min_length=1)
    ks: tuple[int, ...] = Field(default=(5, 10, 20, 50), min_length=1)  # lengths of lists
    splits: SplitSettings = SplitSettings()
    representation: RepresentationSettings = RepresentationSettings()
    max_users: int = Field(default=50_000, ge=1)  # of a split with more, so many are drawn at random and judged
    ablations: bool = False  # judge the hybrid without each modality too: a whole fit more for each
    n_resamples: int = Field(default=1000, ge=100)  # of the bootstrap over users

    @field_validator("ks")
    @classmethod
    def _ascending(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ks) < 1:
            raise ValueError(f"k is {min(ks)}, expected 1 or more")
        return tuple(sorted(set(ks)))

    @property
    def on_listens(self) -> list[Protocol]:
        """The protocols that hold listens out."""
        return [protocol for protocol in self.protocols if protocol != REPRESENTATION]


def evaluation_settings(
    protocols: list[str] | None,
    ks: str,
    networks: str | None = None,
    max_tracks: int | None = None,
    cold_by: str = "track",
    n_cuts: int = 1,
    ablations: bool = False,
    live_days: float | None = None,
    warm_split: str = "usual",
    made_up: str = "",
) -> EvaluationSettings:
    """Make settings of what a command line says: protocols, list lengths and networks, each with commas.

    Raises:
        ConfigError: a protocol or network is unknown, or a number is no whole number from 1.
    """
    given: dict[str, Any] = {"ks": _parts([ks]), "representation": {}, "ablations": ablations}
    given["splits"] = {"cold_by": cold_by, "n_cuts": n_cuts, "live_days": live_days, "warm_split": warm_split}
    given["splits"]["made_up"] = _parts([made_up]) if made_up else ()
    if protocols:
        given["protocols"] = _parts(protocols)
    if networks is not None:
        given["representation"]["networks"] = _parts([networks])
    if max_tracks is not None:
        given["representation"]["max_tracks"] = max_tracks
    try:
        return EvaluationSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def _parts(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",")]
