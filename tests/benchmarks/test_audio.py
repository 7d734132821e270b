"""The benchmark runs, on three tiny clips; what it finds is no test's affair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import audio, sounds
from benchmarks.decoding import fastest
from benchmarks.embedding import embed, has_librosa, librosa_log_mel, peak_mb
from benchmarks.models import NETWORKS, Name, sound_model
from recsys.audio.decoding.decode import decode
from recsys.audio.logmel import log_mel
from recsys.audio.settings import DecodeSettings, LogMelSettings
from recsys.util.progress import Silent

pytestmark = pytest.mark.usefixtures("decoded_here")


class Counted(Silent):
    """Counts as a bar does."""

    n = 0

    def advance(self, n: int = 1, note: str = "") -> None:
        self.n += n


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    bar = Counted()
    made = sounds.clips(tmp_path_factory.mktemp("clips"), 3, bar, seconds=3.5)
    assert bar.n == 3
    return made


def test_the_fastest_way_gives_the_samples_of_the_real_one(clips: list[Path], tmp_path: Path) -> None:
    for path in (clips[0], sounds.recording(tmp_path / "long.flac", 40.0)):
        np.testing.assert_allclose(fastest(path), decode(path, DecodeSettings()).clip.samples, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_embeds(clips: list[Path], network: Name) -> None:
    assert embed(clips[:1], sound_model(network)).n_vectors == 1


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_damaged_files_are_problems_beside_whole_ones(clips: list[Path], tmp_path: Path) -> None:
    bad = sounds.damaged(tmp_path, clips, 4)
    run = embed([*bad[:2], *clips, *bad[2:]], sound_model("conv1d"))
    assert (run.n_vectors, run.n_problems) == (3, 4)
    assert run.seconds > 0


@pytest.mark.slow
@pytest.mark.usefixtures("apart")
def test_peak_memory_is_that_of_all_processes(clips: list[Path]) -> None:
    assert peak_mb(clips, "conv1d", 4) > 50


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its readers of sound
@pytest.mark.skipif(not has_librosa(), reason="librosa is in the extra `bench`")
def test_librosa_hears_the_same(clips: list[Path]) -> None:
    samples = torch.from_numpy(decode(clips[0], DecodeSettings()).clip.samples)
    ours = log_mel(samples[None], LogMelSettings())[0].numpy()
    np.testing.assert_allclose(librosa_log_mel(clips[0], LogMelSettings()), ours, atol=2e-3)


def test_lines_are_laid_out() -> None:
    drawn = audio.table([audio.Row("one", "1.5", "<= 2", True), audio.Row("other", "3")], "title")
    assert [list(column.cells) for column in drawn.columns] == [
        ["one", "other"], ["1.5", "3"], ["<= 2", ""], ["yes", ""],
    ]  # fmt: skip
