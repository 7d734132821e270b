"""Addresses in, bound sockets out: ``HOST:PORT`` held for one server before anybody can connect to it."""

import socket
from ipaddress import ip_address

from recsys.errors import ConfigError


def parse_address(address: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises:
        ConfigError: it is neither, or the port is not within 0 to 65535.
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"the address is {address!r}, expected HOST:PORT such as 127.0.0.1:50051 or [::1]:0")
    return host, int(port)


def hold_port(address: str) -> socket.socket:
    """Bind ``address`` for this server alone, without listening: nobody can connect until a worker listens.

    A name that stands for several addresses is bound at the first of them that this machine has.

    Raises:
        ConfigError: the address cannot be parsed, found or bound, as when another server has the port.
    """
    host, port = parse_address(address)
    refused: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        raise ConfigError(
            f"the host in {address!r} was not found ({error}); expected a name or IP of this machine"
        ) from error
    for family, kind, protocol, _, place in found:
        holder = socket.socket(family, kind, protocol)
        try:
            # Bound without SO_REUSEPORT, so that a port in use is refused even where its owner shares it;
            # with SO_REUSEADDR, so that connections a former server has just closed are no hindrance.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(place)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            holder.close()
            refused = error
        else:
            return holder
    raise ConfigError(f"cannot listen on {address}: {refused}; choose another address or stop what is using it")


def text_of(bound: socket.socket) -> str:
    """Write the address that a socket is bound to."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address of this machine can be reached from it alone."""
    return ip_address(host.partition("%")[0]).is_loopback
