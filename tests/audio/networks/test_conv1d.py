import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys.audio.networks.conv1d import Conv1d, Dense, build_network
from recsys.audio.settings import LogMelSettings, NetworkSettings
from recsys.errors import ConfigError

SETTINGS = NetworkSettings(name="conv1d", width=10, dim=7, n_layers=2, kernel_frames=4)
LOG_MEL = LogMelSettings()


def named(name: str, **others: object) -> NetworkSettings:
    return NetworkSettings.model_validate({"name": name, "start": "random", "width": 10, "dim": 7, **others})


def test_any_number_of_frames_goes_in() -> None:
    network = Conv1d(96, SETTINGS).eval()
    for n_frames in (1, 2, 187, 1876):
        assert network(torch.rand(3, 96, n_frames)).shape == (3, 7)


def test_pooling_forgets_when_but_not_how_much() -> None:
    network = Conv1d(5, SETTINGS).eval()
    quiet = torch.zeros(1, 5, 256)
    early, late, longer = quiet.clone(), quiet.clone(), quiet.clone()
    early[:, 2, 64:72] = 5.0
    late[:, 2, 128:136] = 5.0
    longer[:, 2, 64:96] = 5.0
    torch.testing.assert_close(network(early), network(late), atol=1e-5, rtol=0)
    assert float((network(early) - network(longer)).detach().abs().max()) > 1e-3


def test_the_dense_baseline_sees_where_a_sound_is() -> None:
    network = Dense(5, 64, named("dense")).eval()
    early, late = torch.zeros(1, 5, 64), torch.zeros(1, 5, 64)
    early[:, 2, 8:16] = 5.0
    late[:, 2, 40:48] = 5.0
    assert float((network(early) - network(late)).detach().abs().max()) > 1e-3


def test_gradients_stay_finite_in_silence() -> None:
    network = Conv1d(5, SETTINGS)
    network(torch.zeros(4, 5, 50)).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.slow
def test_the_default_costs_less_than_a_gflop_a_clip() -> None:
    network = build_network(NetworkSettings(name="conv1d"), LOG_MEL).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 10, 96, 187))  # 30 s
    assert counter.get_total_flops() < 1e9


@pytest.mark.parametrize("name", ["conv1d", "dense"])
def test_a_clip_is_the_mean_of_its_patches(name: str) -> None:
    network = build_network(named(name), LOG_MEL).eval()
    clips = torch.rand(3, 4, 96, 187)
    with torch.inference_mode():
        embeddings = network(clips)
        patch_by_patch = torch.stack([network(clips[:, patch : patch + 1]) for patch in range(4)])
    assert embeddings.shape == (3, network.dim) == (3, 7)
    torch.testing.assert_close(embeddings, patch_by_patch.mean(dim=0), atol=1e-5, rtol=0)


def test_a_gru_hears_the_order_of_patches_and_the_mean_does_not() -> None:
    clips = torch.rand(2, 5, 96, 187)
    for pooling, hears in (("mean", False), ("gru", True)):
        network = build_network(named("conv1d", pooling=pooling), LOG_MEL).eval()
        with torch.inference_mode():
            difference = float((network(clips) - network(clips.flip(1))).abs().max())
        assert (difference > 1e-4) == hears
        assert network(clips[:, :1]).shape == (2, 7)


def test_musicnn_is_held_to_its_own_log_mel() -> None:
    assert build_network(named("musicnn", tune="all"), LOG_MEL).dim == 200
    with pytest.raises(ConfigError, match="n_mels is 64, musicnn needs 96"):
        build_network(named("musicnn", tune="all"), LogMelSettings(n_mels=64))
    with pytest.raises(ConfigError, match="is auto"):
        build_network(named("auto"), LOG_MEL)


def test_a_gru_needs_training() -> None:
    with pytest.raises(ValueError, match="tune = last"):
        named("musicnn", tune="head", pooling="gru")
