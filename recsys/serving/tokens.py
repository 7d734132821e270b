"""Bearer tokens: who may call what. A file of hashes in, the holder of a token out.

    recsys token add -> token, shown once -> its SHA-256 as a line of the file -> Keyring -> Token or None

A token is 256 random bits, so a plain hash is enough: there is nothing to guess that salt or slowness would protect.
The file has a JSON object a line, and is replaced in one rename: a running server never sees half of it. Its
``Keyring`` looks twice a second whether the file has changed. A file that is gone or damaged lets nobody in; where it
cannot be read because this machine is short of something for a moment, the tokens of before are known until it can.
"""

import asyncio
import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from recsys.errors import ConfigError, NotFoundError
from recsys.util.files import replace
from recsys.util.watched_file import Watched

PREFIX = "recsys_"  # so that a token is known for one where it should not be, as in a repository
LOOK_S = 0.5  # between two looks at the file
NAME = re.compile(r"[\w.@-]{1,64}")

_LOG = logging.getLogger(__name__)


class Role(IntEnum):
    """What a token allows; each role includes those below it."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The role as it is written."""
        return self.name.lower()


@dataclass(frozen=True)
class Token:
    """What is kept of a token; ``made_at`` is an ISO 8601 time."""

    name: str
    role: Role
    digest: bytes  # SHA-256
    made_at: str

    @cached_property
    def number(self) -> int:
        """A number above 0 that stands for this token in tables."""
        return int.from_bytes(self.digest[:8], "big") >> 1 | 1


class Keyring:
    """The tokens of a file, as one process knows them; asked by one thread, read by that or by one beside it."""

    def __init__(self, file: Path) -> None:
        self._watched = Watched([file], lambda: read_tokens(file))
        # one value: what was verified is kept beside the tokens that it was verified by
        self._known: tuple[Sequence[Token], dict[bytes, Token]] = self._watched.value, {}
        self._look_at = 0.0
        self._is_followed = False
        self.readable = True  # whether the file could be read when it was last looked at

    async def follow(self) -> None:
        """Look at the file twice a second on a thread, until cancelled, so that who asks never waits for a disk."""
        self._is_followed = True
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_S)

    def holder(self, token: str, now: float) -> Token | None:
        """Find what is kept of a token, None for one that is not known; ``now`` in seconds of ``time.monotonic``."""
        if not self._is_followed and now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look()
        tokens, verified = self._known
        digest = sha256(token.encode(errors="surrogateescape")).digest()
        return verified.get(digest) or _verified(digest, tokens, verified)

    def _look(self) -> None:
        found = self._watched.look()
        if found is False:
            return
        if found is True:
            self._known, self.readable = (self._watched.value, {}), True
        else:
            self._known, self.readable = ((), {}), False
            _LOG.error("nobody is let in: %s", found)


def _verified(digest: bytes, tokens: Sequence[Token], verified: dict[bytes, Token]) -> Token | None:
    found = None
    for token in tokens:  # all of them, whichever it is: the time it takes tells nothing
        if hmac.compare_digest(token.digest, digest):
            found = token
    if found is not None:
        verified[digest] = found
    return found


def read_tokens(file: Path) -> list[Token]:
    """Read the tokens of a file.

    Raises:
        ConfigError: it cannot be read, is damaged, or anybody may write to it.
    """
    try:
        if file.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"anybody may write to the tokens file {file}; say chmod o-w {file}")
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no tokens file {file}; make one with `recsys token add --tokens {file}`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the tokens file {file} cannot be read: {error}") from error
    return [_token(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _token(line: str, where: str) -> Token:
    try:
        held = json.loads(line)
        digest = bytes.fromhex(held["sha256"])
        token = Token(str(held["name"]), Role[str(held["role"]).upper()], digest, str(held["made_at"]))
    except (ValueError, KeyError, TypeError) as error:  # not with the line itself, which may be a token by mistake
        raise ConfigError(f"{where} is no token's line; write it with `recsys token add`") from error
    if len(digest) != sha256().digest_size:
        raise ConfigError(f"{where} has a hash of {len(digest)} bytes, expected {sha256().digest_size}")
    return token


def add_token(file: Path, role: Role, name: str | None = None) -> tuple[str, Token]:
    """Make a token and keep its hash in the file, which is made if need be.

    Returns:
        The token itself, which is kept nowhere, and what is kept of it.

    Raises:
        ConfigError: the name is taken or has other than letters, digits and ``. _ @ -``, or the file fails.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = sha256(secret.encode()).digest()
    name = name if name is not None else f"{role.word}-{digest.hex()[:8]}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"the name is {name!r}, expected up to 64 letters, digits and . _ @ -")
    token = Token(name, role, digest, datetime.now(UTC).isoformat(timespec="seconds"))
    with _locked(file):
        tokens = read_tokens(file) if file.exists() else []
        if any(known.name == name for known in tokens):
            raise ConfigError(f"there is a token named {name} in {file}; choose another name or remove that one")
        _write(file, [*tokens, token])
    return secret, token


def remove_token(file: Path, name: str) -> None:
    """Take a token out of the file; running servers refuse it within a second.

    Raises:
        ConfigError: the file cannot be read or written.
        NotFoundError: it has no token of that name.
    """
    with _locked(file):
        tokens = read_tokens(file)
        left = [token for token in tokens if token.name != name]
        if len(left) == len(tokens):
            raise NotFoundError(f"there is no token named {name!r} in {file}")
        _write(file, left)


def _write(file: Path, tokens: Sequence[Token]) -> None:
    """Replace the file in one rename; its mode and owner stay, and a new one is its owner's alone."""
    file = file.resolve()  # where it is a link, that stays one
    lines = [
        {"name": token.name, "role": token.role.word, "sha256": token.digest.hex(), "made_at": token.made_at}
        for token in tokens
    ]

    def write(beside: Path) -> None:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
        if file.exists():
            before = file.stat()
            beside.chmod(stat.S_IMODE(before.st_mode))
            os.chown(beside, before.st_uid, before.st_gid)  # root may add a token for a server that is not root

    try:
        replace(file, write)
    except OSError as error:
        raise ConfigError(f"the tokens file {file} cannot be written: {error}") from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other writers out; the lock is on the folder, since the file itself is replaced."""
    try:
        folder = os.open(file.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"the folder of the tokens file {file} cannot be opened: {error}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
