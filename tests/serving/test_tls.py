"""TLS and mutual TLS over the wire, with certificates that are made here; and files that do not do."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from helpers.guarded_server import call, connected, doored
from recsys.errors import ConfigError
from recsys.serving.access import AccessControl
from recsys.serving.context import ServerContext
from recsys.serving.settings import ServeSettings
from recsys.serving.tls import read_certificates
from recsys.util.pem import expiry_told

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@dataclass
class Authority:
    """An authority, and what it signs, in files."""

    folder: Path
    ca: trustme.CA

    @property
    def file(self) -> Path:
        self.ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        return self.folder / "ca.pem"

    def issue(self, name: str, **dates: datetime) -> tuple[Path, Path]:
        """A certificate for ``name`` and its key."""
        made, number = self.ca.issue_cert(name, **dates), len(list(self.folder.glob("*.key")))
        cert, key = self.folder / f"{name}{number}.pem", self.folder / f"{name}{number}.key"
        cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), trustme.CA())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), trustme.CA())


@pytest.fixture(scope="module")
def server_files(authority) -> tuple[Path, Path]:
    return authority.issue("localhost")


@contextmanager
def tls_server(cert: Path, key: Path, client_ca: Path | None = None) -> Iterator[str]:
    settings = ServeSettings(tls_cert=cert, tls_key=key, client_ca=client_ca)
    with doored(AccessControl(certificates=read_certificates(settings))) as address:
        yield address


def credentials(authority: Authority, client: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    cert, key = client or (None, None)
    return grpc.ssl_channel_credentials(
        authority.file.read_bytes(), key and key.read_bytes(), cert and cert.read_bytes()
    )


def turned_away(address: str, given: grpc.ChannelCredentials | None) -> bool:
    """Whether not even a call is made; the same server is then asked by somebody it knows."""
    with connected(address, given) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, "Recommend")
    return caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_tls_answers_who_trusts_it_and_stays_closed_to_plaintext(authority, stranger, server_files):
    with tls_server(*server_files) as address:
        assert turned_away(address, None), "plaintext to a TLS port"
        assert turned_away(address, credentials(stranger)), "a client that trusts another authority"
        with connected(address, credentials(authority)) as channel:
            assert call(channel, "Recommend") == b"got x"


def test_a_server_s_expired_certificate_is_not_trusted(authority):
    expired = authority.issue("localhost", not_before=YESTERDAY - timedelta(days=9), not_after=YESTERDAY)
    with tls_server(*expired) as address:
        assert turned_away(address, credentials(authority))


def test_tls_to_a_plain_port_fails(authority):
    with doored(AccessControl()) as address:
        assert turned_away(address, credentials(authority))


def test_mutual_tls_lets_in_only_certificates_of_its_authority(authority, stranger, server_files):
    with tls_server(*server_files, authority.file) as address:
        assert turned_away(address, credentials(authority)), "no certificate"
        # Signed by a stranger, shown to a server that the client trusts.
        assert turned_away(address, credentials(authority, stranger.issue("client"))), "another authority's"
        expired = authority.issue("late", not_before=YESTERDAY - timedelta(days=9), not_after=YESTERDAY)
        assert turned_away(address, credentials(authority, expired)), "an expired one"
        with connected(address, credentials(authority, authority.issue("client"))) as channel:
            assert call(channel, "Recommend") == b"got x"


# ---- files ---------------------------------------------------------------------------------------------------


def test_no_files_are_no_certificates():
    assert read_certificates(ServeSettings()) is None


@pytest.mark.parametrize("given", [("tls_cert",), ("tls_key",), ("client_ca",), ("tls_cert", "client_ca")])
def test_one_without_the_other_is_refused(authority, server_files, given):
    with pytest.raises(ConfigError, match="needs both --tls-cert and --tls-key"):
        read_certificates(ServeSettings(**dict.fromkeys(given, server_files[0])))


def test_files_that_do_not_do_are_named(authority, stranger, server_files, tmp_path):
    cert, key = server_files
    _, other_key = stranger.issue("other")
    (tmp_path / "noise").write_bytes(b"noise")
    cases = [
        ({"tls_cert": tmp_path / "none.pem"}, "none.pem cannot be read: No such file"),
        ({"tls_key": tmp_path / "none.key"}, "none.key cannot be read: No such file"),
        ({"client_ca": tmp_path / "none.ca"}, "none.ca cannot be read: No such file"),
        ({"tls_key": other_key}, "are not a certificate and its key"),
        ({"tls_key": tmp_path / "noise"}, "are not a certificate and its key"),
        ({"tls_cert": tmp_path / "noise"}, "are not a certificate and its key"),
        ({"client_ca": tmp_path / "noise"}, "noise holds no certificate"),
    ]
    for given, told in cases:
        with pytest.raises(ConfigError, match=told):
            read_certificates(ServeSettings(**{"tls_cert": cert, "tls_key": key, **given}))


def test_a_key_with_a_password_is_refused_without_asking(authority, server_files, tmp_path):
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(server_files[1].read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"word")))
    with pytest.raises(ConfigError, match="without a password"):
        read_certificates(ServeSettings(tls_cert=server_files[0], tls_key=locked))


def test_a_renewed_certificate_is_taken_up_and_a_half_renewed_one_is_not(authority, stranger, tmp_path, caplog):
    def lay(cert: Path, key: Path | None) -> None:
        shutil.copy(cert, tmp_path / "cert")
        if key:
            shutil.copy(key, tmp_path / "key")

    lay(*authority.issue("localhost"))
    newer = stranger.issue("localhost")
    with tls_server(tmp_path / "cert", tmp_path / "key") as address:
        with connected(address, credentials(authority)) as channel:
            assert call(channel, "Recommend") == b"got x"
            lay(newer[0], None)
            with connected(address, credentials(authority)) as another:
                assert call(another, "Recommend") == b"got x", "the former one stays"
            assert "the certificate is not renewed" in caplog.text
            lay(*newer)
            assert call(channel, "Recommend") == b"got x", "a connection that was open stays open"
        assert turned_away(address, credentials(authority))
        with connected(address, credentials(stranger)) as channel:
            assert call(channel, "Recommend") == b"got x"


def test_mutual_tls_stays_mutual_when_renewed(authority, stranger, tmp_path):
    for file, name in zip((*authority.issue("localhost"), authority.file), ("cert", "key", "ca"), strict=True):
        shutil.copy(file, tmp_path / name)
    ours, theirs = authority.issue("client"), stranger.issue("client")
    with tls_server(tmp_path / "cert", tmp_path / "key", tmp_path / "ca") as address:
        with connected(address, credentials(authority, ours)) as channel:
            assert call(channel, "Recommend") == b"got x"
        shutil.copy(stranger.file, tmp_path / "ca")
        assert turned_away(address, credentials(authority, ours))
        assert turned_away(address, credentials(authority))
        with connected(address, credentials(authority, theirs)) as channel:
            assert call(channel, "Recommend") == b"got x"


def test_a_deadline_holds_over_tls(authority, server_files):
    with tls_server(*server_files) as address, connected(address, credentials(authority)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/recsys.v1.Recommender/Recommend")(b"slow", timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [(-400, -35, "expired on"), (-10, 3, "expires on"), (2, 90, "is not valid before"), (-10, 300, ""),
     (-10, 40_000, "")],
)  # fmt: skip
def test_an_own_certificate_that_clients_refuse_is_told_of(authority, since, until, told, caplog):
    now = datetime.now(UTC)
    cert, _ = authority.issue("localhost", not_before=now + timedelta(since), not_after=now + timedelta(until))
    found = expiry_told(cert)
    assert (told in found) if told else not found
    ServerContext(ServeSettings(tls_cert=cert)).announce()
    assert (found in caplog.text) if told else ("certificate" not in caplog.text)


def test_a_renewal_is_not_skipped_for_a_read_that_failed_once(authority, tmp_path, monkeypatch, caplog):
    cert, key = (tmp_path / name for name in ("a.pem", "a.key"))
    for made, kept in zip(authority.issue("localhost"), (cert, key), strict=True):
        shutil.copy(made, kept)
    certificates = read_certificates(ServeSettings(tls_cert=cert, tls_key=key))
    assert certificates._renewed() is None
    for made, kept in zip(authority.issue("localhost"), (cert, key), strict=True):
        shutil.copy(made, kept)
    whole = Path.read_bytes

    def short_of_descriptors(self):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", short_of_descriptors)
    assert certificates._renewed() is None
    monkeypatch.setattr(Path, "read_bytes", whole)
    assert certificates._renewed() is not None
    assert certificates._watched.value[0] == cert.read_bytes()
    assert "not renewed" not in caplog.text, "nothing is wrong with the files"
