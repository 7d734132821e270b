"""Filters by tiles give what plain products give."""

import pytest
import torch

from helpers.made_musicnn import made_up
from recsys.audio.networks import musicnn_front, tiles
from recsys.audio.networks.musicnn_front import _over_positions
from recsys.audio.networks.tiles import highest_in_tiles


@pytest.mark.parametrize("n_frames", [7, 8, 12, 13, 40])
@pytest.mark.parametrize("n", [1, 6])
def test_the_answer_is_that_of_plain_products(n: int, n_frames: int) -> None:
    generator = torch.Generator().manual_seed(n_frames)
    x = 3 * torch.rand(n, 20, n_frames, generator=generator)
    filters = torch.randn(4, 5, 7, generator=generator)
    found, expected = highest_in_tiles(x, filters), _over_positions(x, filters)
    assert found.shape == (n, n_frames - 6, 4)
    assert float((found - expected).abs().max()) < 2e-5 * float(expected.abs().max())


def test_a_filter_as_high_as_the_patch_has_one_position() -> None:
    x, filters = torch.rand(2, 9, 15), torch.rand(3, 9, 7)
    torch.testing.assert_close(highest_in_tiles(x, filters), _over_positions(x, filters), rtol=1e-4, atol=1e-4)


def test_single_precision_goes_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        musicnn_front, "highest_in_tiles", lambda x, w: (asked.append(w.shape), _over_positions(x, w))[1]
    )
    patches = torch.rand(1, 96, 30)
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            made_up(dtype).front_end(patches)
    assert asked == [(204, 38, 7), (204, 67, 7)]
    assert tiles.FRAMES == 7
