"""Tokens in a file: only hashes in it, what is there is known, what is gone is not."""

import asyncio
import errno
import json
import os
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread

import pytest

from helpers.command import run
from recsys.errors import ConfigError, NotFoundError
from recsys.serving import tokens
from recsys.serving.tokens import Keyring, Role, add_token, read_tokens, remove_token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_a_token_is_known_by_its_hash_alone(file: Path) -> None:
    secret, token = add_token(file, Role.WRITE, "phone")
    assert secret not in file.read_text()
    assert json.loads(file.read_text())["sha256"] == sha256(secret.encode()).hexdigest()
    ring = Keyring(file)
    assert ring.holder(secret, 1.0) == token
    assert (token.name, token.role) == ("phone", Role.WRITE)
    assert ring.holder(secret[:-1], 1.0) is None
    assert ring.holder(token.digest.hex(), 1.0) is None, "the hash is no token"
    assert ring.holder("", 1.0) is None
    assert ring.holder("\udcff", 1.0) is None


def test_no_token_is_kept_in_memory(file: Path) -> None:
    secret, _ = add_token(file, Role.READ)
    ring = Keyring(file)
    ring.holder(secret, 1.0)
    assert secret not in repr([getattr(ring, name) for name in vars(ring)])


def test_tokens_are_unlike_and_long_enough(file: Path) -> None:
    made = {add_token(file, Role.READ)[0] for _ in range(20)}
    assert len(made) == 20
    assert all(len(secret.removeprefix("recsys_")) == 43 for secret in made)  # 256 bits


def test_every_hash_is_compared_whichever_fits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [add_token(file, Role.READ)[0] for _ in range(5)]
    compared: list[bytes] = []
    compare = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    for secret in (made[0], made[4], "recsys_unknown"):
        compared.clear()
        Keyring(file).holder(secret, 1.0)
        assert len(compared) == 5


def test_a_changed_file_is_read_again_and_not_before_its_time(file: Path) -> None:
    secret, _ = add_token(file, Role.READ, "old")
    ring = Keyring(file)
    assert ring.holder(secret, 10.0)
    newer, _ = add_token(file, Role.ADMIN, "new")
    remove_token(file, "old")
    assert ring.holder(secret, 10.0 + tokens.LOOK_S / 2), "looked at too often"
    assert ring.holder(secret, 10.0 + tokens.LOOK_S) is None
    found = ring.holder(newer, 10.0 + tokens.LOOK_S)
    assert found
    assert found.role is Role.ADMIN


@pytest.mark.parametrize("damage", ["gone", "not JSON", "writable by all"])
def test_a_file_that_cannot_be_read_lets_nobody_in_until_it_is_whole_again(
    file: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret, _ = add_token(file, Role.READ)
    ring, whole = Keyring(file), file.read_bytes()
    assert ring.holder(secret, 1.0)
    if damage == "gone":
        file.unlink()
    elif damage == "not JSON":
        file.write_text(secret)
    else:
        file.chmod(0o666)
    assert ring.holder(secret, 2.0) is None
    assert not ring.readable
    assert ring.holder(secret, 3.0) is None
    assert caplog.text.count("nobody is let in") == 1, "once a change, not once a look"
    assert secret not in caplog.text
    file.write_bytes(whole)
    file.chmod(0o600)
    assert ring.holder(secret, 4.0)
    assert ring.readable


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("what", ["stat", "read_text"])
def test_what_cannot_be_read_for_a_moment_is_known_as_before_and_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret, _ = add_token(file, Role.READ, "old")
    ring = Keyring(file)
    newer, _ = add_token(file, Role.READ, "new")

    def fails(*_args: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(Path, what, fails)
        assert ring.holder(secret, 1.0), "those of before go on"
        assert ring.holder(newer, 2.0) is None
        assert ring.readable
    assert ring.holder(newer, 3.0), "tried again although the file has not changed since"
    assert "nobody" not in caplog.text


def test_a_file_that_is_the_same_again_after_it_was_gone_lets_its_holders_in(file: Path) -> None:
    secret, _ = add_token(file, Role.READ)
    ring = Keyring(file)
    state = ring._watched._state
    file.rename(file.with_name("away"))
    assert ring.holder(secret, 1.0) is None
    file.with_name("away").rename(file)
    ring._watched._state = ring._watched._state_now()  # as of a folder that was away, and not the file
    assert state is not None
    assert ring.holder(secret, 2.0)


@pytest.mark.parametrize(
    "line",
    [
        "recsys_abc", "[]", "3", "{}", '{"name": "a", "role": "king", "sha256": "00", "made_at": ""}',
        '{"name": "a", "role": "read", "sha256": "00", "made_at": ""}',
        '{"name": "a", "role": "read", "sha256": "zz", "made_at": ""}',
        '{"name": "a", "role": "read", "sha256": 5, "made_at": ""}',
    ],
)  # fmt: skip
def test_a_damaged_line_is_named_and_not_shown(file: Path, line: str) -> None:
    add_token(file, Role.READ)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        Keyring(file)
    assert "recsys_abc" not in str(caught.value)


def test_the_file_is_its_owners_alone_and_keeps_a_mode_that_it_was_given(file: Path) -> None:
    add_token(file, Role.READ, "a")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    add_token(file, Role.READ, "b")
    remove_token(file, "a")
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(file.parent) == ["tokens"], "nothing is left beside it"


def test_a_link_stays_one(file: Path) -> None:
    real = file.with_name("real")
    add_token(real, Role.READ)
    file.symlink_to(real)
    add_token(file, Role.READ)
    assert file.is_symlink()
    assert len(read_tokens(real)) == 2


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    threads = [Thread(target=lambda: [add_token(file, Role.READ) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_tokens(file)) == 20


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "x" * 65, "a/b"])
def test_odd_names_are_refused(file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected up to 64 letters"):
        add_token(file, Role.READ, name)


def test_names_are_had_once(file: Path) -> None:
    add_token(file, Role.READ, "phone")
    with pytest.raises(ConfigError, match="there is a token named phone"):
        add_token(file, Role.ADMIN, "phone")
    with pytest.raises(NotFoundError, match="no token named 'tablet'"):
        remove_token(file, "tablet")


def test_the_command_shows_a_token_once(file: Path) -> None:
    ran = run("token", "add", "--tokens", file, "--role", "admin", "--name", "ops")
    secret = ran.out.strip()
    assert ran.status == 0
    assert secret not in ran.err
    holder = Keyring(file).holder(secret, 1.0)
    assert holder
    assert (holder.name, holder.role) == ("ops", Role.ADMIN)
    listed = run("token", "list", "--tokens", file).out
    assert "ops" in listed
    assert "admin" in listed
    assert holder.digest.hex()[:8] not in listed
    assert run("token", "remove", "ops", "--tokens", file).status == 0
    assert read_tokens(file) == []
    assert run("token", "remove", "ops", "--tokens", file).status == 3
    assert run("token", "add", "--tokens", file, "--role", "king").status == 2


@pytest.mark.parametrize("action", [("list",), ("remove", "a")])
def test_no_file_is_one_line(file: Path, action: tuple[str, ...]) -> None:
    ran = run("token", *action, "--tokens", file)
    assert ran.status == 2
    assert "there is no tokens file" in ran.complaint


def test_a_file_that_is_slow_to_read_stops_nobody_who_asks(tmp_path: Path) -> None:
    file, reading, go_on = tmp_path / "tokens", Event(), Event()
    secret, _ = add_token(file, Role.READ, "one")
    keyring = Keyring(file)
    look = keyring._watched.look

    def slow() -> object:
        reading.set()
        assert go_on.wait(20)
        return look()

    keyring._watched.look = slow

    async def ask() -> None:
        following = asyncio.create_task(keyring.follow())
        assert await asyncio.to_thread(reading.wait, 20)
        remove_token(file, "one")
        assert keyring.holder(secret, 100.0) is not None, "as was known before: the file is still read"
        go_on.set()
        while keyring.holder(secret, 200.0) is not None:  # what was verified by the old tokens goes with them
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(ask(), 60))
