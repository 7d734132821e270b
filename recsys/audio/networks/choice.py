"""Which network a catalogue gets: what the settings leave open, settled by what is here.

    AudioSettings, tracks with audio, weights or none  ->  settled  ->  AudioSettings that name a network and a start

musicnn with a fitted head is the best that is known for a small catalogue and costs 13 to 17 times the decoding;
``conv1d``, taught by it, costs less than decoding (``docs/research/findings-audio.md``).
"""

from pathlib import Path

from recsys.audio.settings import AudioSettings, NetworkSettings
from recsys.util.progress import Progress


def settled(settings: AudioSettings, n_tracks: int, weights: Path | None, progress: Progress) -> AudioSettings:
    """Name the network and its start.

    Args:
        settings: as they were given.
        n_tracks: with audio.
        weights: folder of the published weights; None where there are none.
        progress: told where the published weights are missed.
    """
    network = settings.network
    if network.name == "onnx":
        return _with_patches(heard_at(settings))
    has_start = network.start == "pretrained" and weights is not None
    name = network.name
    if name == "auto":
        trains_gru = network.pooling == "gru"
        name = "musicnn" if has_start and n_tracks <= network.max_musicnn_tracks and not trains_gru else "conv1d"
    if network.start == "pretrained" and not has_start:
        progress.log(
            f"audio: musicnn's weights are not here, so {name} is trained from a random start; "
            "`recsys weights musicnn` fetches them"
        )
    changes = {"name": name, "start": "pretrained" if has_start else "random"}
    if name == "musicnn" and not has_start:
        changes["tune"] = "all"  # there is nothing to keep
    return _with_patches(with_network(settings, **changes))


def _with_patches(settings: AudioSettings) -> AudioSettings:
    """Have networks other than published ones under a head hear all patches, whatever was asked for."""
    network = settings.network
    under_head = network.tune == "head" and network.start == "pretrained"
    published = network.name == "musicnn" or (network.name == "onnx" and network.beside == "musicnn")
    return settings if published and under_head else with_network(settings, patches="all")


def heard_at(settings: AudioSettings) -> AudioSettings:
    """Have clips decoded at the sample rate that the network takes, which only a plug-in has of its own."""
    if settings.network.name != "onnx":
        return settings
    decode = settings.decode.model_copy(update={"sample_rate": settings.network.sample_rate})
    return settings.model_copy(update={"decode": decode})


def with_network(settings: AudioSettings, **changes: object) -> AudioSettings:
    """Change some of the network's settings."""
    network = NetworkSettings.model_validate(settings.network.model_dump() | changes)
    return settings.model_copy(update={"network": network})
