import numpy as np
import pytest
import torch

from golden.make_musicnn import patch
from helpers.made_musicnn import made_up
from helpers.places import GOLDEN
from recsys.audio.networks.musicnn import N_POOLED, MusicNN
from recsys.audio.networks.musicnn_front import fastest_dtype
from recsys.util.threads import torch_threads


@pytest.fixture(scope="module")
def network() -> MusicNN:
    return made_up(torch.float32)


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    first = torch.from_numpy(patch())
    return torch.stack([first, first.flip(1), first.flip(0)])


@pytest.mark.parametrize("gradients", [False, True], ids=["products", "convolutions"])
def test_golden(network: MusicNN, patches: torch.Tensor, gradients: bool) -> None:
    with np.load(GOLDEN / "musicnn.npz") as golden, torch.set_grad_enabled(gradients):
        maxima, means = network.pooled(network.front_end(patches))
        found = {"maxima": maxima, "means": means, "penultimate": network(patches), "tags": network.tags(patches)}
        for name, tensor in found.items():
            # by tiles single precision is a little rougher
            np.testing.assert_allclose(tensor[0].detach(), golden[name], atol=1e-5 if gradients else 5e-5, err_msg=name)


def test_rows_are_patches_and_do_not_depend_on_each_other(network: MusicNN, patches: torch.Tensor) -> None:
    with torch.no_grad():
        together = network(patches)
        alone = torch.cat([network(one[None]) for one in patches])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_quick_products_are_close(network: MusicNN, patches: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.no_grad():
        exact, quick = network(patches), made_up(dtype)(patches)
    assert float(torch.cosine_similarity(exact, quick).min()) > 0.999
    assert float((exact - quick).abs().max()) > 0  # it was another path


@pytest.mark.parametrize("n_frames", [1, 6, 187, 400])
def test_any_number_of_frames_goes_in(network: MusicNN, n_frames: int) -> None:
    with torch.no_grad():
        maxima, means = network.pooled(network.front_end(torch.rand(2, 96, n_frames)))
        assert maxima.shape == means.shape == (2, N_POOLED)
        assert network(torch.rand(2, 96, n_frames)).shape == (2, network.dim)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_products_give_what_convolutions_give(patches: torch.Tensor, dtype: torch.dtype) -> None:
    other = made_up(dtype)
    with torch.no_grad():
        other.normalise.running_mean += 0.7  # the zeros beyond the ends are another sound to this one
        other.normalise.weight *= -1.5
        other.front[0].convolution.weight *= 0.5
        by_products = other.front_end(patches[:, :, :50])
    by_convolutions = other.front_end(patches[:, :, :50])
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.int8: 0.3}[dtype]
    torch.testing.assert_close(by_products, by_convolutions.detach(), atol=tolerance, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_patch_gives_the_same_bits_in_any_company(n: int) -> None:
    network, some = made_up(torch.int8), torch.rand(n, 96, 187, generator=torch.Generator().manual_seed(n)) * 4
    with torch.no_grad():
        torch.testing.assert_close(network.front_end(some)[-1:], network.front_end(some[-1:]), atol=0, rtol=0)
        exact = made_up(torch.float32).front_end(some)
        torch.testing.assert_close(network.front_end(some), exact, atol=0.2, rtol=0)


@pytest.mark.slow
def test_silence_and_a_silent_filter_are_whole_numbers_too() -> None:
    network = made_up(torch.int8)
    with torch.no_grad():
        network.front[0].convolution.weight[3] = 0
        assert bool(network(torch.zeros(2, 96, 187)).isfinite().all())


def test_gradients_reach_every_weight_in_training() -> None:
    network = MusicNN(n_tags=3)
    network.tags(torch.rand(2, 96, 20)).sum().backward()
    assert all(weights.grad is not None for weights in network.parameters())


def test_training_moves_the_norms() -> None:
    network = MusicNN(dtype=torch.float32).train()
    with torch.no_grad(), torch_threads(1):
        network(torch.rand(4, 96, 20))
    assert float(network.front[0].norm.running_mean.abs().max()) > 0


def test_the_fastest_type_is_one_that_is_known() -> None:
    assert fastest_dtype() in (torch.float32, torch.bfloat16, torch.int8)
