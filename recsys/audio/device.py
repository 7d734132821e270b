"""Where networks run: the graphics processor where there is one, else the processor."""

from typing import Literal

import torch

from recsys.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda"]


def device_of(name: DeviceName) -> torch.device:
    """Turn the setting ``audio.device`` into a device of this machine.

    Raises:
        ConfigError: ``cuda`` is asked for, and torch finds none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ConfigError("audio.device is cuda, but torch finds no graphics processor here; leave it at auto")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
