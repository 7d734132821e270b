"""Certificates: the files that the settings name, checked, as what gRPC listens with.

With an authority for clients, TLS is mutual: a client without a certificate of that authority does not get as far as
a call. The files are read once, before the workers are forked; a renewed certificate is taken up by a restart.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from recsys.errors import ConfigError
from recsys.serving.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Make what a port is opened with; this starts gRPC, so it is for a worker to call."""
        return grpc.ssl_server_credentials([(self.key, self.chain)], self.client_ca, self.client_ca is not None)


def read_certificates(settings: ServeSettings) -> Certificates | None:
    """Read the certificates that the settings name; None where they name none.

    Raises:
        ConfigError: one of two that belong together is missing, or a file is missing, damaged or does not fit.
    """
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.client_ca
    if cert is None or key is None:
        if cert or key or client_ca:
            raise ConfigError("TLS needs both --tls-cert and --tls-key, and --client-ca comes on top of them")
        return None
    _check(cert, key, client_ca)
    return Certificates(_read(cert), _read(key), None if client_ca is None else _read(client_ca))


def _check(cert: Path, key: Path, client_ca: Path | None) -> None:
    """Let OpenSSL look at the files: gRPC would only say that no port was bound."""
    for file in (cert, key, client_ca):
        if file is not None:
            _read(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # else it would ask for one on the terminal
    except ssl.SSLError as error:
        raise ConfigError(
            f"{cert} and {key} are not a certificate and its key in PEM, without a password: {error}"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"{client_ca} holds no certificate in PEM: {error}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the file {file} cannot be read: {error.strerror}") from error
