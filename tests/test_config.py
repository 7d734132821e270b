"""Settings: defaults without a file, a TOML file over them, and one sentence for what does not fit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers.places import ROOT
from recsys.config import RunSettings, load_settings
from recsys.errors import ConfigError
from recsys.util.settings import Settings

PIPELINES = ROOT / "pipelines"


def written(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_no_file_gives_the_defaults() -> None:
    assert load_settings(None) == RunSettings()


def test_a_file_is_read_over_the_defaults(tmp_path: Path) -> None:
    found = load_settings(written(tmp_path, "seed = 7\n[hybrid.als]\nn_factors = 5\n[blend]\ncontent = 0.5\n"))
    assert (found.seed, found.hybrid.als.n_factors, found.blend.content) == (7, 5, 0.5)
    rest = RunSettings()
    assert found.hybrid.als.epochs == rest.hybrid.als.epochs
    assert found.hybrid.content == rest.hybrid.content
    assert found.blend.als is None


def sections(settings: Settings, path: str = "") -> Iterator[tuple[str, Settings]]:
    yield path, settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from sections(value, f"{path}.{name}".lstrip("."))


SECTIONS = [path for path, _ in sections(RunSettings())]


@pytest.mark.parametrize("path", SECTIONS)
def test_an_unknown_key_is_an_error_wherever_it_stands(path: str, tmp_path: Path) -> None:
    where = f"{path}.n_facters".lstrip(".")
    with pytest.raises(ConfigError, match=f"setting {where}: ") as caught:
        load_settings(written(tmp_path, f"{where} = 3\n"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", SECTIONS)
def test_settings_are_frozen(path: str) -> None:
    settings = dict(sections(RunSettings()))[path]
    name = next(iter(type(settings).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, getattr(settings, name))


NUMBERS = [
    f"{path}.{name}".lstrip(".")
    for path, settings in sections(RunSettings())
    for name in type(settings).model_fields
    if name not in {"seed", "rating_liked_from", "rating_disliked_to"}
    and (isinstance(getattr(settings, name), int | float) or path == "blend")
]


@pytest.mark.parametrize("where", NUMBERS)
def test_no_number_may_be_negative(where: str, tmp_path: Path) -> None:
    section = where.partition(".")[0]
    with pytest.raises(ConfigError, match=f"setting {section}"):
        load_settings(written(tmp_path, f"{where} = -1\n"))


SIZES = ("n_factors", "dim", "tower", "hidden", "embedding", "batch", "n_buckets", "max_tokens", "year_bucket",
         "nearest_centroids", "n_centroids", "depth", "n_probe", "train_tracks")  # fmt: skip


@pytest.mark.parametrize("where", [path for path in NUMBERS if path.rpartition(".")[2] in SIZES])
def test_no_size_may_be_zero(where: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"setting {where}: "):
        load_settings(written(tmp_path, f"{where} = 0\n"))


SHA256, OUTPUTS = f"sha256 = '{'0' * 64}'\n", "outputs = ['embedding']\n"
ONNX = "[audio.network]\nname = 'onnx'\nmodel = 'clap.onnx'\n"


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    found = load_settings(
        written(tmp_path, f"{ONNX}{SHA256}{OUTPUTS}sample_rate = 48000\nwindow_s = 5\n")
    ).audio.network
    assert (found.name, found.model, found.outputs) == ("onnx", "clap.onnx", ("embedding",))
    assert (found.sample_rate, found.window_s, found.hop_s) == (48_000, 5.0, 10.0)
    assert (found.input, found.beside, found.tune) == ("wave", "musicnn", "head")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 'x'", "setting seed: "),
        ("hybrid = 3", "setting hybrid: "),
        ("seed = ", "not valid TOML"),
        ("[hybrid.prior]\nridge_l2 = []", "setting hybrid.prior.ridge_l2"),
        ("[hybrid.prior]\nridge_l2 = [1.0, 0.0]", "setting hybrid.prior.ridge_l2"),
        ("[hybrid.content.fusion]\ndrop_modality = 1.0", "setting hybrid.content.fusion.drop_modality: "),
        ("[blend]\nvalidation_share = 1.0", "setting blend.validation_share: "),
        ("[audio.network]\nname = 'onnx'", "name is onnx, which needs audio.network.model"),
        (f"{ONNX}sha256 = 'abc'", "setting audio.network.sha256"),
        (f"{ONNX}{SHA256}outputs = []", "name is onnx, which needs audio.network.outputs"),
        (f"{ONNX}{SHA256}{OUTPUTS}tune = 'all'", "an ONNX model is not trained; take head or none"),
        (f"{ONNX}{SHA256}{OUTPUTS}sample_rate = 24000\n[audio.decode]\nsample_rate = 44100", "leave the first out"),
        (f"{ONNX}{SHA256}{OUTPUTS}sample_rate = 24000\ninput = 'log-mel'", "for input = log-mel they must be the same"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "run.toml" in str(caught.value)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)
    (tmp_path / "latin.toml").write_bytes("# é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(tmp_path / "latin.toml")


@pytest.mark.parametrize("file", sorted(PIPELINES.glob("*.toml")), ids=lambda file: file.name)
def test_the_settings_files_that_come_along_are_good(file: Path) -> None:
    load_settings(file)


def test_the_fusions_tasks_keep_their_defaults_beside_a_given_one() -> None:
    settings = RunSettings.model_validate({"hybrid": {"content": {"tasks": {"genre": 0.7}}}, "audio": {"tasks": {}}})
    assert settings.hybrid.content.tasks == RunSettings().hybrid.content.tasks.model_copy(update={"genre": 0.7})
    assert settings.hybrid.content.tasks.tags == 0.5
    assert settings.audio.tasks.tags == 0
