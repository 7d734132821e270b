"""The Python client against real servers: every method, what it raises, and how many workers its connections reach."""

import json
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import trustme

from helpers.catalogues import clip
from helpers.served import served
from helpers.stores import copied
from recsys.client import Client, Listen, Recorded
from recsys.errors import ConfigError, NotFoundError, RefusedError
from recsys.recommender import Recommender
from recsys.serving.tokens import Role, add_token
from recsys.store.generation import Store


@pytest.fixture(scope="module")
def store(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tiny_store, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def address(store: Path):
    with served(store, "--workers", 2) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str):
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def known(tiny_store: Path) -> Recommender:
    """The same lists, asked without a server."""
    return Recommender.open(tiny_store)


# ---- reads -------------------------------------------------------------------------------------------------------


def pairs(found) -> list[tuple[str, float]]:
    return [(track.track_id, pytest.approx(track.score, abs=1e-4)) for track in found.tracks]


def test_recommend(client, known):
    found, expected = client.recommend("u5", 4), known.recommend("u5", 4)
    assert pairs(expected) == [(track.track_id, track.score) for track in found.tracks]
    assert [track.rank for track in found.tracks] == [1, 2, 3, 4]
    assert [track.reason_track_id for track in found.tracks] == [t.reason_track_id for t in expected.tracks]
    assert (found.source, found.generation, found.note) == ("personal", known.generation, "")
    assert client.recommend("nobody", 2).source == "popular"
    assert len(client.recommend("u5").tracks) == 20


def test_recommend_with_filters(client):
    found = client.recommend("u5", 40, genres=["jazz"], min_year=1990, exclude_track_ids=["t11"])
    assert {int(track.track_id[1:]) % 3 for track in found.tracks} == {2}
    assert all(int(track.track_id[1:]) >= 10 for track in found.tracks)
    assert "t11" not in {track.track_id for track in found.tracks}
    assert found.note, "it says why there are fewer than 40"
    assert len(client.recommend("u5", 3, max_per_artist=1, diversity=0.5).tracks) == 3


def test_similar(client, known):
    for space in ("hybrid", "content", "taste"):
        found = client.similar("t4", 3, space)
        assert pairs(known.similar("t4", 3, space)) == [(track.track_id, track.score) for track in found.tracks]
        assert found.source == "neighbours"


def test_recommend_from_tracks(client, known):
    found = client.recommend_from_tracks(["t4", "t7"], 3)
    assert pairs(known.recommend_from_tracks(["t4", "t7"], 3)) == [(t.track_id, t.score) for t in found.tracks]


def test_audience(client, known):
    found, expected = client.audience("t4", 3), known.audience("t4", 3)
    assert [user for user, _ in found] == [user for user, _ in expected]
    assert np.allclose([margin for _, margin in found], [margin for _, margin in expected], atol=1e-4)


def test_track(client):
    found = client.track("t39")
    told = {"track_id": "t39", "title": "Title 39", "artist": "Artist 0-1", "genres": ["ambient"], "year": 2019}
    assert found == {**told, "plays": 0.0, "is_cold": True}, "what is not known is missing"
    json.dumps(found)


def test_status(client, known):
    expected = known.status()
    assert client.status() == {**expected, "created_at": expected["created_at"][:19] + "+00:00"}


# ---- writes ------------------------------------------------------------------------------------------------------


def test_listens_are_taken_in_once_and_refused_with_their_place(client):
    heard = client.recommend("u4", 1).tracks[0].track_id
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    batch = [
        Listen("u4", heard, when, event_id="e1"),
        Listen("u4", "nothing"),
        Listen("u4", heard, datetime(2026, 1, 3), plays=2.0, event_id="e2"),
        Listen("u4", "t0", disliked=True, plays=0.0, event_id="e3"),
    ]
    found = client.record(batch)
    assert (found.recorded, found.repeated) == (3, 0)
    assert [(place, "no track 'nothing'" in reason) for place, reason in found.refused] == [(1, True)]
    assert client.record([batch[0], batch[2], batch[3]]) == Recorded(0, 3, ())
    later = {track.track_id for track in client.recommend("u4", 40, genres=["ambient", "metal", "jazz"]).tracks}
    assert not later & {heard, "t0"}
    with pytest.raises(RefusedError, match="listens holds 0 events"):
        client.record([])


def test_a_play_count_of_nothing_is_no_play(client):
    with pytest.raises(ConfigError, match="plays of 't1' is 0, expected above 0"):
        client.record([Listen("u4", "t1", plays=0.0)])


def test_deletions(client):
    client.delete_track("t13")
    for ask in (client.track, client.similar, client.audience, client.delete_track):
        with pytest.raises(NotFoundError, match="t13"):
            ask("t13")
    client.record([Listen("new", "t7", event_id="n1")])
    assert client.recommend("new", 2).source == "personal"
    client.delete_user("new")
    client.delete_user("nobody at all")
    assert client.recommend("new", 2).source == "popular"


def test_uploads_need_the_build_extra(client, tmp_path):
    (tmp_path / "a.wav").write_bytes(clip("a.wav", 60))
    with pytest.raises(RefusedError, match=r"pip install 'recsys\[build\]' \(UNIMPLEMENTED\)") as caught:
        client.upload(tmp_path / "a.wav")
    assert caught.value.status == "UNIMPLEMENTED"


def test_a_file_that_is_refused_before_its_end_leaves_no_noise(client, tmp_path, caplog):
    (tmp_path / "long.wav").write_bytes(bytes(30 << 20))
    for _ in range(3):
        with pytest.raises(RefusedError, match="UNIMPLEMENTED"):
            client.upload(tmp_path / "long.wav")
    assert not caplog.records


@pytest.mark.slow
def test_upload(audio_store, tmp_path):
    song = tmp_path / "my song.mp3"
    song.write_bytes(clip("my song.mp3", 90))
    with served(copied(audio_store, tmp_path), embed=True) as address, Client(address) as client:
        first = client.upload(song, artist="Band 1", genres=["jazz"], year=1999, title=None)
        assert first.track_id.startswith("upload-")
        assert (first.known, first.has_sound, len(first.neighbours)) == (False, True, 8)
        assert {"title": "my song", "artist": "Band 1", "genres": ["jazz"], "year": 1999}.items() <= client.track(
            first.track_id
        ).items()
        again = client.upload(song)
        assert (again.track_id, again.known) == (first.track_id, True)
        assert first.track_id in {track.track_id for track in client.similar("s3", 8).tracks}
        assert client.status()["n_uploads"] == 1
        for name, content, told in (("a.mp3", b"no sound", "decode"), ("b.mp3", b"", "no audio came")):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(RefusedError, match=told) as caught:
                client.upload(tmp_path / name)
            assert caught.value.status == "INVALID_ARGUMENT"
        song.write_bytes(clip("my song.mp3", 91))
        with pytest.raises(RefusedError, match="belongs to another track") as caught:
            client.upload(song, track_id="s1")
        assert caught.value.status == "ALREADY_EXISTS"


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda c: c.recommend("u1", genre=["jazz"]), "no \"genre\" field.*RecommendRequest has user_id, k, excl"),
        (lambda c: c.recommend("u1", genres="jazz"), "genres is the text 'jazz', expected a list"),
        (lambda c: c.recommend("u1", exclude_track_ids="t1"), "exclude_track_ids is the text 't1', expected a list"),
        (lambda c: c.recommend_from_tracks("t1"), "track_ids is the text 't1', expected a list"),
        (lambda c: c.recommend_from_tracks([1]), "RecommendFromTracksRequest has track_ids, k"),
        (lambda c: c.recommend("u1", -1), "out of range"),
        (lambda c: c.similar("t1", 2**40), "out of range"),
        (lambda c: c.similar(7), "SimilarTracksRequest has track_id, k, space"),
        (lambda c: c.audience("t1", 1.5), "AudienceOfRequest has track_id, k"),
        (lambda c: c.track("\udcff"), "GetTrackRequest has track_id"),
        (lambda c: c.delete_user(7), "DeleteUserRequest has user_id"),
        (lambda c: c.record([Listen(7, "t1")]), "Listen has user_id"),
        (lambda c: c.upload(Path("none.mp3")), "none.mp3 cannot be read: No such file"),
        (lambda c: c.upload(Path(__file__).parent), "cannot be read: Is a directory"),
        (lambda c: c.upload(Path(__file__), genres="jazz"), "genres is the text"),
        (lambda c: c.upload(Path(__file__), mood="low"), "no \"mood\" field.*NewTrack has track_id, title"),
    ],
)  # fmt: skip
def test_wrong_arguments_never_reach_a_server(ask, told):
    with Client("127.0.0.1:1", deadline_s=0.2) as client, pytest.raises(ConfigError, match=f"(?s){told}"):
        ask(client)


@pytest.mark.parametrize(
    ("ask", "status", "told"),
    [
        (lambda c: c.recommend("u1", 201), "INVALID_ARGUMENT", "k is 201"),
        (lambda c: c.recommend(""), "INVALID_ARGUMENT", "user_id is empty"),
        (lambda c: c.recommend("u1", diversity=2.0), "INVALID_ARGUMENT", "diversity is 2"),
        (lambda c: c.similar("t1", 3, "colour"), "INVALID_ARGUMENT", "space is 'colour'"),
        (lambda c: c.similar("t1", 3, "sound"), "FAILED_PRECONDITION", "sound"),
        (lambda c: c.recommend_from_tracks([]), "INVALID_ARGUMENT", "track_ids holds 0 ids"),
        (lambda c: c.record([Listen("u1", "t1")] * 1001), "INVALID_ARGUMENT", "listens holds 1001 events"),
    ],
)
def test_a_refusal_has_status_and_sentence(client, ask, status, told):
    with pytest.raises(RefusedError, match=told) as caught:
        ask(client)
    assert caught.value.status == status
    assert str(caught.value).endswith(f"({status})")


@pytest.mark.parametrize("method", ["track", "similar", "audience", "delete_track"])
def test_an_unknown_track_is_not_found(client, method):
    with pytest.raises(NotFoundError, match="no-such"):
        getattr(client, method)("no-such")


def test_nobody_there_is_unavailable_and_a_late_answer_too_late():
    with Client("127.0.0.1:1", deadline_s=5) as client, pytest.raises(RefusedError) as caught:
        client.status()
    assert caught.value.status == "UNAVAILABLE"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, deadline_s=0.3) as client, pytest.raises(RefusedError) as caught:
            client.status()
    assert caught.value.status == "DEADLINE_EXCEEDED"


def test_a_closed_client_says_so(address):
    client = Client(address)
    client.close()
    with pytest.raises(ConfigError, match="was closed"):
        client.status()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"connections": 0}, "connections is 0, expected 1 or more"),
        ({"deadline_s": 0.0}, "deadline_s is 0.0"),
        ({"deadline_s": float("nan")}, "deadline_s is nan"),
        ({"token": ""}, "token is empty"),
        ({"token": "recsys_x\n"}, "line's end"),
        ({"token": "tökén"}, "as it was shown"),
        ({"ca": Path("none.pem")}, "none.pem cannot be read: No such file"),
        ({"ca": Path(__file__)}, "test_client.py holds no certificate in PEM"),
        ({"certificate": Path("a")}, "only certificate came, .*; give certificate, key and ca"),
        ({"key": Path("a")}, "only key came"),
        ({"certificate": Path("a"), "key": Path("b")}, "only certificate and key came"),
        ({"ca": Path("a"), "key": Path("b")}, "only key and ca came"),
    ],
)
def test_wrong_settings(given, told):
    with pytest.raises(ConfigError, match=told) as caught:
        Client("127.0.0.1:1", **given)
    assert "recsys_x" not in str(caught.value), "a token is in no message"


# ---- tokens and TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(store, tmp_path_factory):
    """A server with tokens and mutual TLS, whose files are in a folder; gives address, folder and tokens by role."""
    folder, authority = tmp_path_factory.mktemp("doors"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("localhost", "client"):
        made = authority.issue_cert(name)
        (folder / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    tokens = {role.word: add_token(folder / "tokens", role)[0] for role in Role}
    files = ["--tls-cert", folder / "localhost.pem", "--tls-key", folder / "localhost.key", "--client-ca"]
    with served(store, "--tokens", folder / "tokens", *files, folder / "ca.pem") as address:
        yield address.replace("127.0.0.1", "localhost"), folder, tokens


def test_tokens_and_certificates(secured):
    address, folder, tokens = secured
    own = {"ca": folder / "ca.pem", "certificate": folder / "client.pem", "key": folder / "client.key"}
    with Client(address, token=tokens["admin"], **own) as client:
        client.delete_user("u1")
    refusals = [
        ({**own}, "UNAUTHENTICATED"),
        ({**own, "token": "recsys_wrong"}, "UNAUTHENTICATED"),
        ({**own, "token": tokens["write"]}, "PERMISSION_DENIED"),
        ({"ca": folder / "ca.pem", "token": tokens["admin"]}, "UNAVAILABLE"),  # no certificate
        ({"token": tokens["admin"]}, "UNAVAILABLE"),  # in the clear
    ]
    for given, status in refusals:
        with Client(address, **given) as client, pytest.raises(RefusedError) as caught:
            client.delete_user("u1")
        assert caught.value.status == status, given


def test_a_certificate_and_a_key_that_do_not_do_are_named(secured):
    _, folder, _ = secured
    own = {"ca": folder / "ca.pem", "certificate": folder / "client.pem", "key": folder / "client.key"}
    for given, told in (
        ({"key": folder / "none.key"}, "none.key cannot be read"),
        ({"key": folder / "localhost.key"}, "localhost.key are not a certificate and its key"),
        ({"certificate": folder / "tokens"}, "tokens and .*client.key are not a certificate and its key"),
    ):
        with pytest.raises(ConfigError, match=told):
            Client("127.0.0.1:1", **{**own, **given})


# ---- connections -------------------------------------------------------------------------------------------------


def connections_of(address: str) -> set[str]:
    """Which sockets of this machine are connected to a port, by the inode of the server's end."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(port) and row[3] == "01"}


def owners(inodes: set[str]) -> set[int]:
    """The processes that have these sockets open."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = {str(link.readlink()) for link in folder.iterdir()}
        except OSError:
            continue
        if links & {f"socket:[{inode}]" for inode in inodes}:
            found.add(int(folder.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="looks into /proc")
def test_several_connections_reach_several_workers(store):
    with served(store, "--workers", 2) as address:
        with Client(address) as client:
            for _ in range(12):
                client.status()
            assert len(owners(connections_of(address))) == len(connections_of(address)) == 1
        with Client(address, connections=12) as client:
            for _ in range(12):
                client.status()
            assert len(connections_of(address)) == 12
            assert len(owners(connections_of(address))) == 2, "by chance one time in 2,048"


def test_threads_share_a_client(address):
    found, expected = [], Client(address).recommend("u1", 5)
    with Client(address, connections=3) as client:
        threads = [threading.Thread(target=lambda: found.append(client.recommend("u1", 5))) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 24


def test_the_store_holds_what_was_acknowledged(client, store):
    client.record([Listen("kept", "t4", event_id="k1")])
    assert Store(store).live.exists()
    with_it = Recommender.open(store).recommend("kept", 3)
    assert [track.track_id for track in with_it.tracks] == [t.track_id for t in client.recommend("kept", 3).tracks]
