"""Certificates: the files that the settings name, checked, as what gRPC listens with.

With an authority for clients, TLS is mutual: a client without a certificate of that authority does not get as far as
a call. The files are looked at for every new connection, so that a renewed certificate needs no restart; while they
are damaged, half renewed or cannot be read for a moment, the former one stays.
"""

import logging
import threading
from pathlib import Path
from typing import Any

import grpc

from recsys.errors import ConfigError
from recsys.serving.settings import ServeSettings
from recsys.util.pem import expiry_told, read_authority, read_pair
from recsys.util.watched_file import Watched

_LOG = logging.getLogger(__name__)


class Certificates:
    """A chain and its key, and the authority that clients need a certificate of, if any; all PEM files.

    Raises:
        ConfigError: a file is missing or damaged, or two do not belong together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._watched = Watched([file for file in (cert, key, client_ca) if file], self._read)
        self._guard = threading.Lock()

    def credentials(self) -> grpc.ServerCredentials:
        """Make what a port is opened with; this starts gRPC, so it is for a worker to call."""
        mutual = self._client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._configuration(), self._renewed, mutual)

    def _configuration(self) -> Any:
        chain, key, client_ca = self._watched.value
        return grpc.ssl_server_certificate_configuration([(key, chain)], client_ca)

    def _renewed(self) -> Any:
        """What gRPC asks on a thread of its own before each handshake: new certificates, or None for the same."""
        with self._guard:
            found = self._watched.look()
            if found is False:
                return None
            if found is not True:
                _LOG.error("the certificate is not renewed: %s", found)
                return None
            _LOG.info("the certificate is renewed from %s", self._cert)
            message = expiry_told(self._cert)
            if message:
                _LOG.warning(message)
            return self._configuration()

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        chain, key = read_pair(self._cert, self._key)
        return chain, key, read_authority(self._client_ca) if self._client_ca else None


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
    return Certificates(cert, key, client_ca)
