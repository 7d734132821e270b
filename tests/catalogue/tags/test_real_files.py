"""Tags of files as taggers wrote them, where those files are beside the repository."""

import pytest

from helpers.places import FAULTS
from recsys.catalogue.problems import Problems
from recsys.catalogue.scan import scan
from recsys.catalogue.tags.pool import TagReaders
from recsys.util.progress import Silent

CASES = FAULTS

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the repository")

JAZZ_1999 = {"genre": "Jazz", "year": "1999"}
APE = {"title": "Ape title", "artist": "Ape artist", **JAZZ_1999}
V1 = {"title": "V1 title", "artist": "V1 artist", "album": "V1 album", "genre": "Jazz", "year": "2004"}
ROCK_AND_JAZZ = {"genre": "Rock;Jazz"}
RIGHT: dict[str, dict[str, str]] = {
    "which-tag/a-ape.mp3": APE,
    "which-tag/b-ape-id3.mp3": {**APE, "title": "Id3 title"},
    "which-tag/c-v2genre-v1rest.mp3": {**V1, "genre": "House"},
    "which-tag/d-v1.mp3": V1,
    "which-tag/e-v1-ape.mp3": {**V1, **APE},
    "which-tag/f-v22.mp3": {"title": "V22 title", "artist": "V22 artist", "genre": "Jazz", "year": "2004"},
    "which-tag/g-blank-id3.mp3": {},
    "which-tag/h-id3-size-wrong.mp3": {"title": "Title"},
    "which-tag/i-two-id3.mp3": {"title": "First tag"},
    "which-tag/j-riff-info.wav": {"title": "Info title", "artist": "Info artist", "genre": "Jazz", "year": "2004"},
    "which-tag/k-id3.wav": {"title": "Wave id3", "artist": "Wave artist"},
    "wrong-extension/b-adts.m4a": {},
    "wrong-extension/c-oggflac.flac": {"title": "Title 2", "artist": "Someone"},
    "wrong-extension/d-mp3.wav": {"title": "Title 3", "artist": "Someone"},
    "wrong-extension/f-mka.mp3": {"title": "Title 5", "artist": "Someone"},
    "wrong-extension/g-mp3inwav.wav": {"title": "Title 6", "artist": "Someone"},
    "genre-tags/a-num17.mp3": {"genre": "Rock"},
    "genre-tags/b-paren17.mp3": {"genre": "Rock"},
    "genre-tags/c-52-RX.mp3": {"genre": "Electronic;Remix"},
    "genre-tags/d-9-138-viking.mp3": {"genre": "Metal;Black Metal;Viking Metal"},
    "genre-tags/e-4-euro.mp3": {"genre": "Disco;Eurodisco"},
    "genre-tags/f-escaped.mp3": {"genre": "(I can guess"},
    "genre-tags/g-null.mp3": ROCK_AND_JAZZ,
    "genre-tags/h-slash-v23.mp3": ROCK_AND_JAZZ,
    "genre-tags/i-semicolon.mp3": ROCK_AND_JAZZ,
    "genre-tags/j-comma.mp3": ROCK_AND_JAZZ,
    "genre-tags/k-two-frames.mp3": ROCK_AND_JAZZ,
    "genre-tags/l-twice.mp3": {"genre": "Rock"},
    "genre-tags/m-empty.mp3": {},
    "genre-tags/n-255.mp3": {},
    "genre-tags/o-backslashes.mp3": ROCK_AND_JAZZ,
    "artist-names/00.mp3": {"title": "Song 0", "artist": "AC/DC"},
    "artist-names/01.mp3": {"title": "Song 1", "artist": "Bj\u00f6rk"},
    "artist-names/02.mp3": {"title": "Song 2", "artist": "Bj\u00f6rk"},
    "artist-names/04.mp3": {"title": "Song 4", "artist": "bj\u00f6rk"},
    "artist-names/09.mp3": {"title": "Song 9", "artist": "Nina; Mark"},
    "artist-names/20-two-values.mp3": {"artist": "Nina; Mark"},
    "artist-names/21-two-v23.mp3": {"artist": "Nina/Mark"},
    "artist-names/22-comp.mp3": {"artist": "Real Singer"},
    "artist-names/23-only-albumartist.mp3": {"artist": "Various Artists"},
    "artist-names/24-artists-txxx.mp3": {"artist": "Nina & Mark"},
}
TOLD = {"which-tag/h-id3-size-wrong.mp3"}


def test_what_is_right_of_each_file() -> None:
    with TagReaders(1) as readers:
        found = dict(zip(RIGHT, readers.read([CASES / name for name in RIGHT]), strict=True))
    assert {name: inside.tags for name, inside in found.items()} == RIGHT
    assert {name for name, inside in found.items() if inside.notes} == TOLD


@pytest.mark.parametrize("folder", ["id3-bomb", "which-tag", "genre-tags", "artist-names", "wrong-extension"])
def test_every_file_of_a_folder_has_its_row(folder: str) -> None:
    problems = Problems()
    frame = scan(CASES / folder, problems, Silent())
    assert len(frame) == len([path for path in (CASES / folder).iterdir() if path.is_file()])
    assert frame["title"].null_count() == 0
    assert frame["title"].str.len_chars().max() <= 1000
    assert set(problems.counts()) <= {"bad-tags"}
    assert len(problems) == {"id3-bomb": 1, "which-tag": 1}.get(folder, 0)
