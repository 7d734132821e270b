"""All settings in one tree, from a TOML file; an unknown key or a value out of range is an error.

Each class stands beside the step it belongs to; this module only joins them. Every default works without a file.
"""

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from recsys.audio.settings import AudioSettings
from recsys.catalogue.listens import ListensSettings
from recsys.content.metadata import MetadataSettings
from recsys.errors import ConfigError
from recsys.hybrid.blend import BlendSettings
from recsys.hybrid.next_tracks import NextSettings
from recsys.hybrid.parts import HybridSettings
from recsys.live.settings import LiveSettings
from recsys.ranking.candidates import PoolSettings
from recsys.ranking.diversity import ListSettings
from recsys.ranking.neighbours import NeighbourSettings
from recsys.util.settings import Settings


class StoreSettings(Settings):
    """``[store]``: the generations kept."""

    keep_generations: int = Field(default=3, ge=1)  # the current one counts


class RunSettings(Settings):
    """The whole tree; the sections of the TOML file carry the names of the fields."""

    seed: int = 0
    listens: ListensSettings = ListensSettings()
    audio: AudioSettings = AudioSettings()
    metadata: MetadataSettings = MetadataSettings()
    hybrid: HybridSettings = HybridSettings()
    blend: BlendSettings = BlendSettings()
    next: NextSettings = NextSettings()
    lists: ListSettings = ListSettings()
    pools: PoolSettings = PoolSettings()
    neighbours: NeighbourSettings = NeighbourSettings()
    store: StoreSettings = StoreSettings()
    live: LiveSettings = LiveSettings()


def load_settings(path: Path | None) -> RunSettings:
    """Read a TOML file over the defaults; None gives the defaults.

    Raises:
        ConfigError: the file is missing or no TOML, a key is unknown, or a value does not fit.
    """
    if path is None:
        return RunSettings()
    try:
        return RunSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no settings file {path}") from error
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: setting {where}: {first['msg']}") from error
