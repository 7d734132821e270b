import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys.audio.networks import Conv1d, build_network
from recsys.audio.settings import NetworkSettings

SETTINGS = NetworkSettings(width=10, dim=7, n_layers=2, kernel_frames=4)


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


def test_gradients_stay_finite_in_silence() -> None:
    network = Conv1d(5, SETTINGS)
    network(torch.zeros(4, 5, 50)).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


def test_the_default_costs_less_than_a_gflop_a_clip() -> None:
    network = build_network(NetworkSettings(), 96).eval()
    patches = torch.zeros(10, 96, 187)  # 30 s
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(patches)
    assert counter.get_total_flops() < 1e9
