"""Where networks run: the graphics processor where there is one, else the processor."""

from typing import Literal

import torch
from torch import nn

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


def move(network: nn.Module, device: torch.device) -> None:
    """Bring a network to a device, if it is elsewhere.

    ``to`` on one that is there already makes a GRU lay its weights out anew, while other threads may be reading them.
    """
    if next(network.parameters(), torch.empty(0)).device.type != device.type:
        network.to(device)
