"""Certificates and keys from PEM files, checked: gRPC would only say that it cannot connect, or that no port was bound.

certificate, key  ->  read_pair  ->  their bytes        authority  ->  read_authority  ->  its bytes
"""

import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import ConfigError

_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER
SOON_S = 7 * 86400.0  # before a certificate expires, that it will is told


def read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Read a certificate, with its chain, and the key that belongs to it.

    Raises:
        ConfigError: a file cannot be read, is damaged, has a password, or they do not belong together.
    """
    texts = _text(certificate), _text(key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")  # else it asks
    except ssl.SSLError as error:
        raise ConfigError(
            f"{certificate} and {key} are not a certificate and its key in PEM, without a password: {error}"
        ) from error
    except OSError as error:  # it was there a moment ago
        raise ConfigError(f"{certificate} or {key} cannot be read: {error.strerror}") from error
    return texts


def read_authority(file: Path) -> bytes:
    """Read the certificates of an authority.

    Raises:
        ConfigError: the file cannot be read, or has none in it.
    """
    text = _text(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except ssl.SSLError as error:
        raise ConfigError(f"{file} holds no certificate in PEM: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    return text


def expiry_told(certificate: Path) -> str:
    """Say that a certificate has expired, is not valid yet, or is so for ``SOON_S`` only; else nothing."""
    text = _text(certificate).decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    own = text[text.index(begin) : text.index(end) + len(end)]  # the first of a chain is the server's own
    since, until = _validity(ssl.PEM_cert_to_DER_cert(own))
    now = time.time()
    if until <= now:
        return f"the certificate {certificate} expired on {_day(until)}: clients refuse it; renew it"
    if since > now:
        return f"the certificate {certificate} is not valid before {_day(since)}: clients refuse it; check the clock"
    if until <= now + SOON_S:
        return f"the certificate {certificate} expires on {_day(until)}; renew it"
    return ""


def _validity(der: bytes) -> tuple[float, float]:
    """Seconds since 1970 from and until when a certificate (RFC 5280, 4.1) is valid; OpenSSL checked its form."""
    _, outer, _ = _element(der, 0)
    _, at, _ = _element(der, outer)
    tag, start, end = _element(der, at)
    before = 3 if tag == _VERSION else 2  # serial number, algorithm and issuer stand before, and mostly a version
    for _ in range(before + 1):
        _, start, end = _element(der, at)
        at = end
    _, at, _ = _element(der, at)
    times = []
    for _ in range(2):
        tag, start, at = _element(der, at)
        text = der[start:at].decode("ascii")
        if tag == _UTC_TIME:  # years of two digits, those from 50 on of the last century
            text = ("19" if text >= "5" else "20") + text
        times.append(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
    return times[0], times[1]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag of the element at a place, and where its content begins and ends."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length > 127:
        start += length - 128
        length = int.from_bytes(der[at + 2 : start], "big")
    return tag, start, start + length


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the file {file} cannot be read: {error.strerror}") from error
