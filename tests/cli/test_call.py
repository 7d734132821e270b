"""`recsys call` against a real server: what is printed, where, and the exit status; and tokens out of sight."""

import json
from pathlib import Path

import pytest
import trustme
from mutagen.id3 import ID3, TALB, TCON, TDRC, TIT2, TPE1

from helpers.catalogues import clip
from helpers.command import run
from helpers.served import served
from helpers.stores import copied
from recsys.client import Client, Uploaded
from recsys.eventlog.store import open_live
from recsys.serving.tokens import Role, add_token


@pytest.fixture(scope="module")
def store(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tiny_store, tmp_path_factory.mktemp("call"))


@pytest.fixture(scope="module")
def at(store: Path):
    with served(store) as address:
        yield ("--at", address)


def words(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.parametrize(
    "command",
    [["recommend", "u5", "-k", "3"], ["similar", "t4", "-k", "3"], ["similar", "t4", "-k", "3", "--space", "content"]],
)
def test_lists_are_those_of_the_local_command(at, store, command):
    ran, local = run("call", *command, *at, "--json"), run(*command, "--store", store, "--json")
    assert (ran.status, ran.err) == (0, "")
    found, expected = ([json.loads(line) for line in one.out.splitlines()] for one in (ran, local))
    assert [one["track_id"] for one in found] == [one["track_id"] for one in expected]
    assert [one["rank"] for one in found] == [1, 2, 3]
    table = run("call", *command, *at)
    assert {one["track_id"] for one in found} <= words(table.out)


def test_somebody_unknown_gets_popular_tracks_and_is_told(at):
    ran = run("call", "recommend", "nobody", *at)
    assert (ran.status, ran.err) == (0, "nothing is known of the taste of 'nobody': popular tracks\n")


def test_track_audience_and_status(at, store):
    ran = run("call", "track", "t39", *at)
    assert dict(line.split(None, 1) for line in ran.out.splitlines())["title"] == "Title 39"
    assert json.loads(run("call", "track", "t39", *at, "--json").out)["genres"] == ["ambient"]
    users = [
        json.loads(line)["user_id"] for line in run("call", "audience", "t4", "-k", 2, *at, "--json").out.splitlines()
    ]
    assert len(users) == 2
    assert set(users) <= words(run("call", "audience", "t4", "-k", 2, *at).out)
    local = dict(line.split(None, 1) for line in run("status", "--store", store).out.splitlines())
    told = dict(line.split(None, 1) for line in run("call", "status", *at).out.splitlines())
    assert {name: local[name] for name in told if name != "created_at"} == {
        name: value for name, value in told.items() if name != "created_at"
    }
    assert json.loads(run("call", "status", *at, "--json").out)["n_tracks"] == 40


def test_writes(at):
    assert run("call", "listen", "someone", "t4", *at).err == "recorded: someone heard t4\n"
    assert run("call", "recommend", "someone", "-k", 3, *at).err == ""
    assert run("call", "delete-user", "someone", *at).status == 0
    assert "nothing is known" in run("call", "recommend", "someone", "-k", 3, *at).err
    assert run("call", "delete-track", "t22", *at).err == "t22 is gone\n"
    assert run("call", "track", "t22", *at).status == 3
    assert run("call", "listen", "someone", "t22", *at).complaint == "recsys: not recorded: the track 't22' was deleted"


@pytest.mark.slow
def test_upload(audio_store, tmp_path):
    (tmp_path / "new.mp3").write_bytes(clip("new.mp3", 95))
    with served(copied(audio_store, tmp_path), embed=True) as address:
        ran = run("call", "upload", tmp_path / "new.mp3", "--at", address)
        assert (ran.status, ran.out.splitlines()[0].endswith(" added")) == (0, True)
        again = json.loads(run("call", "upload", tmp_path / "new.mp3", "--at", address, "--json").out)
        assert (again["known"], again["track_id"]) == (True, ran.out.split()[0])
        assert len(again["similar"]) == 8


SAID = ["--track-id", "new", "--title", "Own", "--artist", "Band 1", "--album", "First", "--year", 2001]
SAID += ["--genre", "jazz", "--genre", "ambient;metal", "--lyrics-file"]


def test_what_is_said_of_an_upload_is_sent(monkeypatch, tmp_path):
    sent = list[dict[str, object]]()

    def upload(_client: Client, _audio: Path, **about: object) -> Uploaded:
        sent.append(about)
        return Uploaded("new", False, True, (), 0, ())

    monkeypatch.setattr(Client, "upload", upload)
    (tmp_path / "words").write_text("oh number one\n")
    assert run("call", "upload", "x.mp3", *SAID, tmp_path / "words").status == 0
    assert run("call", "upload", "x.mp3").status == 0
    texts = {"track_id": "new", "title": "Own", "artist": "Band 1", "album": "First", "lyrics": "oh number one"}
    assert sent[0] == {**texts, "year": 2001, "genres": ["jazz", "ambient", "metal"]}
    assert {name: value for name, value in sent[1].items() if value} == {}
    ran = run("call", "upload", "x.mp3", *SAID, tmp_path / "none")
    assert (ran.status, "none cannot be read" in ran.complaint, len(sent)) == (2, True, 2)


@pytest.mark.slow
def test_what_is_said_of_an_upload_wins_over_its_tags(audio_store, tmp_path):
    song, store = tmp_path / "new.mp3", copied(audio_store, tmp_path)
    song.write_bytes(clip("new.mp3", 96))
    tags = ID3()
    for tag in (TIT2(text="Tagged"), TPE1(text="Someone"), TALB(text="Second"), TCON(text="polka"), TDRC(text="1971")):
        tags.add(tag)
    tags.save(song)
    (tmp_path / "words").write_text("oh number one\n")
    with served(store, embed=True) as address:
        at = ("--at", address)
        assert run("call", "upload", song, "--title", "Own", "--track-id", "half", *at).status == 0
        half = json.loads(run("call", "track", "half", *at, "--json").out)
        assert (half["title"], half["artist"], half["genres"], half["year"]) == ("Own", "Someone", ["polka"], 1971)
        assert run("call", "delete-track", "half", *at).status == 0  # the same audio would be the same track
        assert run("call", "upload", song, *SAID, tmp_path / "words", *at).status == 0
        told = json.loads(run("call", "track", "new", *at, "--json").out)
    expected = {"title": "Own", "artist": "Band 1", "album": "First", "genres": ["jazz", "ambient", "metal"]}
    assert {name: told[name] for name in expected} == expected
    assert told["year"] == 2001
    with open_live(store / "live.lmdb") as live:
        assert [upload.lyrics for _, upload in live.uploads()][-1] == "oh number one"


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (["recommend", "u1", "-k", 201], 2, "k is 201"),
        (["recommend", "u1", "-k", -1], 2, "out of range"),
        (["recommend", ""], 2, "user_id is empty"),
        (["similar", "no-such"], 3, "no-such"),
        (["similar", "t1", "--space", "sound"], 3, "sound"),
        (["track", "no-such"], 3, "no-such"),
        (["audience", "no-such"], 3, "no-such"),
        (["delete-track", "no-such"], 3, "no-such"),
        (["listen", "u1", "no-such"], 3, "not recorded: no track 'no-such'"),
        (["upload", "no-such.mp3"], 2, "no-such.mp3 cannot be read"),
        (["upload", __file__], 4, "pip install 'recsys[build]' (UNIMPLEMENTED)"),
        (["status", "--token-file", "no-such"], 2, "token file no-such cannot be read"),
        (["status", "--ca", "no-such"], 2, "no-such cannot be read"),
    ],
)
def test_refusals_are_one_line_and_a_status(at, command, status, told):
    ran = run("call", *command, *at)
    assert (ran.status, ran.out) == (status, "")
    assert told in ran.complaint


def test_no_server_is_status_4():
    ran = run("call", "status", "--at", "127.0.0.1:1")
    assert (ran.status, "127.0.0.1:1" in ran.complaint) == (4, True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Path:
    """A folder with ca.pem, and for the names localhost and client a certificate and its key."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("localhost", "client"):
        made = authority.issue_cert(name)
        (folder / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return folder


def test_a_token_comes_from_a_file_or_the_environment(store, tls, tmp_path, monkeypatch):
    tokens = {role: add_token(tmp_path / "tokens", role)[0] for role in Role}
    (tmp_path / "reader").write_text(tokens[Role.READ] + "\n")
    doors = ("--tokens", tmp_path / "tokens", "--tls-cert", tls / "localhost.pem", "--tls-key", tls / "localhost.key")
    with served(store, *doors) as address:
        at = ("--at", address.replace("127.0.0.1", "localhost"), "--ca", tls / "ca.pem")
        assert (run("call", "status", *at).status, "asks for a token" in run("call", "status", *at).complaint) == (
            2,
            True,
        )
        assert run("call", "status", *at, "--token-file", tmp_path / "reader").status == 0
        monkeypatch.setenv("RECSYS_TOKEN", tokens[Role.ADMIN])
        assert run("call", "delete-user", "u3", *at).status == 0
        ran = run("call", "delete-user", "u3", *at, "--token-file", tmp_path / "reader")
        assert (ran.status, "role admin" in ran.complaint) == (2, True), "the file is what was asked for"
        plain = run("call", "status", *at[:2])
        assert (plain.status, tokens[Role.ADMIN] in plain.err) == (4, False)
        monkeypatch.setenv("RECSYS_TOKEN", "two words")
        assert (run("call", "status", *at).status, "two words" in run("call", "status", *at).err) == (2, False)


COMMANDS = [
    *(["recommend", "u2"], ["similar", "t4"], ["audience", "t4"], ["track", "t4"], ["status"], ["listen", "u2", "t4"]),
    *(["upload", __file__], ["delete-user", "u2"], ["delete-track", "t4"]),
]


def test_every_command_shows_its_own_certificate_where_the_server_asks_for_one(tiny_store, tls, tmp_path):
    given = ("--tls-cert", tls / "localhost.pem", "--tls-key", tls / "localhost.key", "--client-ca", tls / "ca.pem")
    with served(copied(tiny_store, tmp_path), *given) as address:
        at = ("--at", address.replace("127.0.0.1", "localhost"), "--ca", tls / "ca.pem")
        own = ("--cert", tls / "client.pem", "--key", tls / "client.key")
        for command in COMMANDS:
            ran = run("call", *command, *at, *own)
            expected = (4, "UNIMPLEMENTED") if command[0] == "upload" else (0, "")
            assert (ran.status, expected[1] in ran.err) == (expected[0], True), ran.err
        assert run("call", "status", *at).status == 4, "no certificate"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_half_of_a_certificate_is_refused(command, tls):
    for given in (("--cert", tls / "client.pem"), ("--key", tls / "client.key")):
        ran = run("call", *command, "--ca", tls / "ca.pem", *given)
        assert (ran.status, "give certificate, key and ca" in ran.complaint) == (2, True)
