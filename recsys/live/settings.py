"""What the live store goes by: kept with a generation, as all settings are, and read from there."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from recsys.util.settings import Settings


class LiveSettings(Settings):
    """``[live]`` in the run's TOML file: what happens to lists between builds."""

    reach: int = Field(default=1000, ge=0)  # users whose lists an upload comes into, at most

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "LiveSettings":
        """Read what a generation was built with; older ones say nothing."""
        return cls.model_validate(settings.get("live", {}))
