"""Certificates and keys from PEM files, checked: gRPC would only say that it cannot connect, or that no port was bound.

certificate, key  ->  read_pair  ->  their bytes        authority  ->  read_authority  ->  its bytes
"""

import ssl
from pathlib import Path

from recsys.errors import ConfigError


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
    return text


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the file {file} cannot be read: {error.strerror}") from error
