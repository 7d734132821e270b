"""Tracks that come in over gRPC: a real server, a real stub, a real embedding process."""

import os
import random
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from mutagen.id3 import ID3, TIT2, TPE1

from helpers.audio_files import encoded, melody
from helpers.catalogues import clip
from helpers.stores import copied
from helpers.upload_service import CALL_S, pieces, serving, settings, upload_server
from recsys.errors import ArtefactError, DataError
from recsys.eventlog.events import GenerationMovedError
from recsys.eventlog.store import open_live
from recsys.live.add_track import add_track
from recsys.recommender import Recommender
from recsys.serving.server import FULL_DISK
from recsys.serving.upload_handler import Serving, TrackUploads
from recsys.serving.upload_request import read_about
from recsys.store.generation import Store
from recsys.uploads.embed_client import Embedder, EmbeddingProcess
from recsys.uploads.metadata import Embedded, NewTrack
from recsys.v1 import recommender_pb2 as pb

pytestmark = pytest.mark.slow

SONG = clip("new.mp3", 50)


@pytest.fixture(scope="module")
def process(audio_store, tmp_path_factory):
    """One warm process for all tests; it looks into a store of its own, with the generation of all the others."""
    store = copied(audio_store, tmp_path_factory.mktemp("embedding"))
    with EmbeddingProcess(store, settings()) as process:
        process.wait_until_warm()
        yield process


@pytest.fixture
def store(audio_store, tmp_path):
    return copied(audio_store, tmp_path)


@pytest.fixture
def stub(store, process):
    with serving(store) as now, upload_server(of(store, process.address, now)) as stub:
        yield stub


def of(store, address, now):
    return TrackUploads(Store(store), Embedder(address, settings()), lambda: now, settings())


class FakeEmbedder:
    """Answers at once, or when it is let go on."""

    def __init__(self):
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = []

    async def embed(self, path, about, generation):
        import asyncio

        from recsys.audio.decoding.worker import content_hash

        self.asked.append(generation)
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        vectors = {"hybrid": np.ones(3, np.float32), "sound": np.ones(2, np.float32)}
        return Embedded(content_hash(path), 2.0, vectors, (), {})


class FakeLive:
    """Keeps what it is given; whoever it does not know is unknown."""

    def __init__(self):
        self.added, self.faults = [], []

    def add(self, upload, vectors, audio):
        if self.faults:
            raise self.faults.pop()
        audio.replace(audio.with_name(upload.file))
        self.added.append(upload)
        return 1

    def track_of_audio(self, content_hash):
        return next((u.track_id for u in self.added if u.content_hash == content_hash), None)

    def free_id(self, wanted):
        return wanted


@pytest.fixture
def fake(tmp_path):
    """A server whose embedder and live store are stand-ins."""
    embedder, live = FakeEmbedder(), FakeLive()
    now = [Serving("g1", live, lambda track_id, k: [], lambda track_id: True)]
    folder = tmp_path / "fake"
    folder.mkdir()
    uploads = TrackUploads(Store(folder), embedder, lambda: now[0], settings(at_once=2, max_mb=0.5, idle_s=0.5))
    with upload_server(uploads) as stub:
        yield SimpleNamespace(stub=stub, embedder=embedder, live=live, now=now, folder=folder)


def kept(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "uploads").iterdir()) if (store / "uploads").exists() else []


def logged(store: Path):
    with open_live(store / "live.lmdb") as live:
        return [] if live is None else [upload for _, upload in live.uploads()]


def refusal(stub, stream):
    with pytest.raises(grpc.RpcError) as caught:
        stub.UploadTrack(stream, timeout=CALL_S)
    sentence = caught.value.details()
    assert "Traceback" not in sentence
    assert "/uploads/" not in sentence, "a client is not told of this machine's files"
    return caught.value.code().name, sentence


def until(condition, limit_s=10.0):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "it did not come to that in time"
        time.sleep(0.01)


def test_a_good_upload_stands_among_the_others(store, stub):
    about = pb.NewTrack(track_id="new", title="A Title", artist="Band 1", genres=["jazz", "metal"], year=2020,
                        lyrics="la la", file_name="../../etc/Some Song.MP3")  # fmt: skip
    answer = stub.UploadTrack(pieces(SONG, about), timeout=CALL_S)
    assert (answer.track_id, answer.known, answer.has_sound, answer.notes) == ("new", False, True, [])
    assert answer.generation == Store(store).current().name
    assert sorted(near.track_id for near in answer.neighbours) == [f"s{n}" for n in range(8)]
    scores = [near.score for near in answer.neighbours]
    assert scores == sorted(scores, reverse=True)
    [upload] = logged(store)
    assert (upload.title, upload.artist, upload.genres, upload.year) == ("A Title", "Band 1", ["jazz", "metal"], 2020)
    assert kept(store) == [f"{upload.content_hash}.mp3"]
    assert (store / "uploads" / upload.file).read_bytes() == SONG
    with closing(Recommender.open(store)) as recommender:
        assert "new" in [track.track_id for track in recommender.similar("s3", 8).tracks]
        lists = [[track.track_id for track in recommender.recommend(f"v{n}", 8).tracks] for n in range(5)]
        assert answer.users_reached == sum("new" in tracks for tracks in lists) > 0


def test_vectors_are_those_of_the_command_line(store, stub, audio_store, tmp_path):
    """One way from sound to vectors: the server's differ in nothing from what `recsys add` makes."""
    stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="new", genres=["jazz"], file_name="a.mp3")), timeout=CALL_S)
    (tmp_path / "other").mkdir()
    other = copied(audio_store, tmp_path / "other")
    (tmp_path / "a.mp3").write_bytes(SONG)
    add_track(other, tmp_path / "a.mp3", NewTrack("new", genre="jazz"))
    found = []
    for folder in (store, other):
        with open_live(folder / "live.lmdb") as live:
            found.append(live.vectors(Store(folder).current().name, 1))
    assert found[0].keys() == found[1].keys() == {"hybrid", "sound", "content"}
    for name, vector in found[0].items():
        np.testing.assert_allclose(vector, found[1][name], atol=1e-5, err_msg=name)
        assert vector.any()
    theirs, ours = logged(other)[0], logged(store)[0]
    assert (ours.title, ours.duration_s, ours.file) == (theirs.title, theirs.duration_s, theirs.file)


def test_tags_inside_the_file_are_believed_where_nothing_is_said(store, stub, tmp_path):
    (tmp_path / "tagged.mp3").write_bytes(SONG)
    tags = ID3()
    tags.add(TIT2(3, ["Inside"]))
    tags.add(TPE1(3, ["Band 2"]))
    tags.save(tmp_path / "tagged.mp3")
    audio = (tmp_path / "tagged.mp3").read_bytes()
    answer = stub.UploadTrack(pieces(audio, pb.NewTrack(artist="Band 3", title="")), timeout=CALL_S)
    [upload] = logged(store)
    assert answer.track_id == upload.track_id == f"upload-{upload.content_hash[:12]}"
    assert (upload.title, upload.artist, upload.file) == ("Inside", "Band 3", upload.content_hash)


def test_the_same_audio_twice_is_the_same_track(store, stub):
    first = stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="new")), timeout=CALL_S)
    again = stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="other"), chunk=999), timeout=CALL_S)
    assert (first.known, again.known, again.track_id, again.has_sound) == (False, True, "new", True)
    assert [near.track_id for near in again.neighbours] == [near.track_id for near in first.neighbours]
    assert list(again.notes) == [
        "this audio was here already, as 'new': what was said of it (track_id 'other') was ignored"
    ]  # fmt: skip
    assert (again.users_reached, len(kept(store)), len(logged(store))) == (0, 1, 1)
    built = stub.UploadTrack(pieces(clip("s1.mp3", 1), pb.NewTrack(track_id="third")), timeout=CALL_S)
    assert (built.known, built.track_id) == (True, "s1")


def test_the_same_audio_at_the_same_time_is_one_track(store, stub):
    calls = [stub.UploadTrack.future(pieces(SONG, pb.NewTrack(track_id=f"n{n}")), timeout=CALL_S) for n in range(4)]
    answers = [call.result() for call in calls]
    assert sorted(answer.known for answer in answers) == [False, True, True, True]
    assert len({answer.track_id for answer in answers}) == 1
    assert len(kept(store)) == len(logged(store)) == 1


@pytest.mark.parametrize("taken", ["s2", "new"])
def test_an_id_of_another_track_is_refused(store, stub, taken):
    stub.UploadTrack(pieces(SONG, pb.NewTrack(track_id="new")), timeout=CALL_S)
    code, sentence = refusal(stub, pieces(clip("other.wav", 51), pb.NewTrack(track_id=taken)))
    assert (code, f"'{taken}' belongs to another track" in sentence) == ("ALREADY_EXISTS", True)
    assert len(kept(store)) == len(logged(store)) == 1


@pytest.mark.parametrize(
    "audio", [b"these are words" * 100, SONG[:300], clip("x.wav", 1)[:300], encoded(melody(0.4), "WAV")]
)
def test_what_cannot_be_used_leaves_nothing(store, stub, audio):
    code, sentence = refusal(stub, pieces(audio, pb.NewTrack(file_name="a.mp3")))
    assert (code, sentence.startswith("the audio cannot be used: ")) == ("INVALID_ARGUMENT", True)
    assert kept(store) == []
    assert logged(store) == []


def test_silence_is_taken_without_sound_and_told(store, stub):
    silence = encoded(np.zeros(3 * 16_000, np.float32), "WAV", rate=16_000)
    about = pb.NewTrack(track_id="new", genres=["jazz"], file_name="a.wav")
    answer = stub.UploadTrack(pieces(silence, about), timeout=CALL_S)
    assert (answer.track_id, answer.known, answer.has_sound) == ("new", False, False)
    assert ["-70 dB" in note for note in answer.notes] == [True]
    assert answer.neighbours, "its genre places it"
    with open_live(store / "live.lmdb") as live:
        assert "sound" not in live.vectors(answer.generation, 1)
    again = stub.UploadTrack(pieces(silence, about), timeout=CALL_S)
    assert (again.track_id, again.known, again.has_sound) == ("new", True, False)


def test_a_mislabelled_file_is_taken_with_a_note(stub):
    answer = stub.UploadTrack(pieces(SONG, pb.NewTrack(file_name="liar.wav")), timeout=CALL_S)
    assert answer.notes == ["the name says wav, the content is mp3"]


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def test_a_process_that_is_killed_costs_the_upload_under_way_alone(store):
    with (
        EmbeddingProcess(store, settings()) as process,
        serving(store) as now,
        upload_server(of(store, process.address, now)) as stub,
    ):
        process.wait_until_warm()
        [decoder] = children(process.process.pid)
        os.kill(decoder, signal.SIGSTOP)  # so that the upload is certainly under way
        call = stub.UploadTrack.future(pieces(SONG), timeout=CALL_S)
        until(lambda: any(path.stat().st_size == len(SONG) for path in (store / "uploads").glob(".*")))
        time.sleep(0.5)
        assert not call.done()
        process.process.kill()
        assert call.exception().code() == grpc.StatusCode.UNAVAILABLE
        os.kill(decoder, signal.SIGKILL)
        assert kept(store) == []
        assert process.revive()
        assert not stub.UploadTrack(pieces(SONG), timeout=CALL_S).known


def test_a_process_that_is_gone_for_good_is_unavailable(store, tmp_path):
    with serving(store) as now, upload_server(of(store, tmp_path / "none", now)) as stub:
        assert refusal(stub, pieces(SONG))[0] == "UNAVAILABLE"
    assert kept(store) == []


def test_too_large_is_refused_before_all_of_it_came(fake):
    sent = []

    def endless():
        for piece in pieces(bytes(50_000_000)):
            sent.append(piece)
            yield piece

    code, sentence = refusal(fake.stub, endless())
    assert (code, sentence) == ("RESOURCE_EXHAUSTED", "the file is larger than 0.5 MB, which is the limit")
    assert len(sent) < 4000
    assert kept(fake.folder) == []
    assert not fake.embedder.asked


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        ([pb.UploadTrackRequest(chunk=b"abc"), pb.UploadTrackRequest(about=pb.NewTrack())], "no `about`"),
        ([pb.UploadTrackRequest()], "no `about`"),
        ([], "no `about`"),
        ([pb.UploadTrackRequest(about=pb.NewTrack())] * 2, "no chunk"),
        ([pb.UploadTrackRequest(about=pb.NewTrack()), pb.UploadTrackRequest()], "no chunk"),
        ([pb.UploadTrackRequest(about=pb.NewTrack())], "no audio came"),
        ([pb.UploadTrackRequest(about=pb.NewTrack()), pb.UploadTrackRequest(chunk=b"")], "no audio came"),
        (pieces(b"abc", pb.NewTrack(year=99)), "year is 99"),
        (pieces(b"abc", pb.NewTrack(year=5000)), "year is 5000"),
        (pieces(b"abc", pb.NewTrack(track_id="x" * 1001)), "track_id has 1,001 bytes"),
        (pieces(b"abc", pb.NewTrack(track_id="a\nb")), "control characters"),
        (pieces(b"abc", pb.NewTrack(track_id=" a")), "begins or ends with a space"),
        (pieces(b"abc", pb.NewTrack(title="t" * 1001)), "title has 1,001 characters"),
        (pieces(b"abc", pb.NewTrack(file_name="t" * 1001)), "file_name has 1,001 characters"),
        (pieces(b"abc", pb.NewTrack(genres=["g"] * 101)), "genres holds 101 names"),
        (pieces(b"abc", pb.NewTrack(genres=["g" * 1001])), "a genre has 1,001 characters"),
        (pieces(b"abc", pb.NewTrack(lyrics="l" * 200_001)), "lyrics has 200,001 characters"),
    ],
)
def test_what_is_not_an_upload_is_refused(fake, stream, told):
    code, sentence = refusal(fake.stub, iter(stream))
    assert code == "INVALID_ARGUMENT"
    assert told in sentence
    assert kept(fake.folder) == []
    assert not fake.embedder.asked


def test_bytes_that_are_no_message_are_refused(fake):
    call = fake.stub.UploadTrack
    call._request_serializer = lambda _: b"\xff\xff\xff"
    assert refusal(fake.stub, iter([pb.UploadTrackRequest()]))[0] == "INVALID_ARGUMENT"


def test_a_stream_that_stops_gives_its_place_to_others(fake):
    never = threading.Event()

    def stalled():
        yield from pieces(b"abc")
        never.wait()

    code, sentence = refusal(fake.stub, stalled())
    never.set()
    assert (code, sentence.startswith("nothing came for 0.5 s")) == ("RESOURCE_EXHAUSTED", True)
    assert kept(fake.folder) == []


@pytest.mark.parametrize("when", ["streaming", "embedding"])
def test_a_cancelled_stream_leaves_nothing(fake, when):
    go_on = threading.Event()

    def slow():
        yield from pieces(bytes(100_000))
        if when == "streaming":
            go_on.wait()

    fake.embedder.go_on.clear()
    call = fake.stub.UploadTrack.future(slow(), timeout=CALL_S)
    until(lambda: fake.embedder.asked if when == "embedding" else kept(fake.folder))
    call.cancel()
    until(lambda: kept(fake.folder) == [])
    go_on.set()
    fake.embedder.go_on.set()
    time.sleep(0.1)
    assert (kept(fake.folder), fake.live.added) == ([], [])
    assert not fake.stub.UploadTrack(pieces(b"next"), timeout=CALL_S).known


def test_a_log_that_cannot_be_written_leaves_no_file(fake):
    fake.live.faults = [ArtefactError("/srv/uploads/secret is full")]
    assert refusal(fake.stub, pieces(b"abc"))[0] == "UNAVAILABLE"
    assert kept(fake.folder) == []
    fake.live.faults = [RuntimeError("a bug")]
    assert refusal(fake.stub, pieces(b"abc")) == (
        "INTERNAL", "the server failed to answer this call; its log has the details",
    )  # fmt: skip
    assert kept(fake.folder) == []
    assert not fake.stub.UploadTrack(pieces(b"abc"), timeout=CALL_S).known


def test_a_new_generation_meanwhile_is_embedded_for(fake):
    """The worker is told by its live store first, and notices the new generation a moment later."""
    fake.live.faults = [GenerationMovedError("g2 is the current one")]
    new = Serving("g2", fake.live, lambda track_id, k: [], lambda track_id: True)
    later = threading.Timer(0.2, lambda: fake.now.__setitem__(0, new))
    later.start()
    answer = fake.stub.UploadTrack(pieces(b"abc"), timeout=CALL_S)
    later.join()
    assert (answer.generation, fake.embedder.asked) == ("g2", ["g1", "g2"])
    assert len(kept(fake.folder)) == len(fake.live.added) == 1


def test_a_full_disk_is_unavailable(fake, monkeypatch):
    monkeypatch.setattr("recsys.uploads.spool.os.fsync", _full)
    sentence = FULL_DISK
    assert refusal(fake.stub, pieces(b"abc")) == ("UNAVAILABLE", sentence)
    assert kept(fake.folder) == []


def _full(_descriptor):
    raise OSError(28, "No space left on device")


def test_without_the_build_extra_it_says_what_to_install():
    with upload_server(None) as stub:
        code, sentence = refusal(stub, pieces(SONG))
    assert code == "UNIMPLEMENTED"
    assert "pip install 'recsys[build]'" in sentence


def test_a_file_name_is_never_a_path():
    said = read_about(pb.NewTrack(file_name="C:\\music\\..\\song.tar.flac"))
    assert (said.suffix, said.name) == (".flac", "song.tar")
    said = read_about(pb.NewTrack(file_name="/etc/passwd"))
    assert (said.suffix, said.name) == ("", "passwd")
    assert read_about(pb.NewTrack(file_name="..")).suffix == ""


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def mutated(audio: bytes, rng: random.Random) -> bytes:
    """Damage audio as a hostile or broken client might: bits, runs, cuts, repeats, other headers."""
    content = bytearray(audio)
    if rng.random() < 0.2:
        content = content[: rng.randrange(100, len(content))]
    for _ in range(rng.choice((1, 3, 10, 30))):
        at = rng.randrange(len(content))
        match rng.randrange(5):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at : at + 64] = rng.randbytes(64)
            case 2:
                del content[at : at + rng.randint(1, 500)]
            case 3:
                content[at:at] = content[at : at + rng.randint(1, 500)]
            case _:
                content[rng.randrange(min(64, len(content)))] = rng.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(content)


@pytest.mark.parametrize("n", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_audio_crashes_nothing(store, stub, process, n):
    rng = random.Random(n)
    whole = [clip(f"x.{kind}", 60 + place) for place, kind in enumerate(("mp3", "flac", "ogg", "wav"))]
    before, codes, early_mb = process.process.pid, [], 0.0
    for number in range(n):
        if number == n // 5:
            early_mb = rss_mb(before)
        audio = mutated(whole[number % 4], rng)
        suffix = rng.choice((".mp3", ".flac", ".wav", ".m4a", ""))
        try:
            stub.UploadTrack(pieces(audio, pb.NewTrack(file_name=f"f{suffix}")), timeout=CALL_S)
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append("a traceback" if "Traceback" in error.details() else error.code().name)
    counts = {code: codes.count(code) for code in set(codes)}
    assert counts.keys() == {"OK", "INVALID_ARGUMENT"}, counts
    assert min(counts.values()) > n / 10, "neither all harmless nor all rubbish"
    assert (process.process.poll(), process.process.pid) == (None, before)
    assert len(kept(store)) == len(logged(store)) <= codes.count("OK")
    assert rss_mb(before) < early_mb + 30, "memory grows with uploads"


def test_the_embedder_alone(process, store, tmp_path):
    import asyncio

    embedder, generation = Embedder(process.address, settings()), Store(store).current().name
    (tmp_path / "a.mp3").write_bytes(SONG)
    heard = asyncio.run(embedder.embed(tmp_path / "a.mp3", NewTrack(), generation))
    assert (heard.has_sound, heard.duration_s) == (True, pytest.approx(2.0, abs=0.1))
    assert np.linalg.norm(heard.vectors["sound"]) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ArtefactError, match="the generation gone is gone"):
        asyncio.run(embedder.embed(tmp_path / "a.mp3", NewTrack(), "gone"))
    with pytest.raises(ArtefactError, match="cannot read the upload"):
        asyncio.run(embedder.embed(tmp_path / "none.mp3", NewTrack(), generation))
    (tmp_path / "empty.mp3").touch()
    with pytest.raises(DataError, match="the file is empty"):
        asyncio.run(embedder.embed(tmp_path / "empty.mp3", NewTrack(), generation))
