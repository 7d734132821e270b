"""What gRPC is told about connections and calls before any of our code sees them: how many, how large, how long.

    max_message, descriptors  ->  options  ->  grpc.aio.server(options=...)

gRPC reads from any connection, whatever its calls are for, so what a stranger may cost is bounded here:
a call that is not read yet has its headers and ``FIRST_WINDOW``, a connection some 40 KB, a read ``READ_BUFFER``.
"""

import resource

FIRST_WINDOW = 1024  # bytes of a message that are taken before the call is read; nearly every request is shorter
MOST_STREAMS = 256  # calls of one connection at a time; a client that has more waits, which gRPC's own do by themselves
READ_BUFFER = 8192  # bytes; gRPC's own of up to 4 MiB stay with a connection after a long message
PENDING, MOST_PENDING = 700, 1000  # calls that our loop has not met yet: from the first on some are refused, then all
MAX_METADATA = 8192  # bytes of a call's headers; gRPC's own

HANDSHAKE_S = 10.0  # from the connection until TLS and HTTP/2 are agreed on; gRPC's own is 120 s
IDLE_S = 300.0  # without a call, until a connection is closed
AGE_S = 3600.0  # of a connection, until it is asked to begin anew: its calls go on
AGE_GRACE_S = 600.0  # calls of a connection that is to end have so long; an upload takes 300 s by default
PING_S, PONG_S = 120.0, 20.0  # a connection that is silent so long is asked, and closed without an answer

MOST_CONNECTIONS = 4096  # of a worker
MOST_DESCRIPTORS = 65536  # that are asked for
OWN_DESCRIPTORS = 128  # for files, sockets between processes, and what a library opens for a moment

SLACK = 1 << 18  # a message that is a little too large, as of a chunk of the limit's size, is refused with our words

Option = tuple[str, int]


def longest(max_message: int) -> int:
    """Bytes of the longest message that gRPC takes in."""
    return max_message + SLACK


def raise_descriptors() -> None:
    """Allow this process, and those that it starts from here on, as many descriptors as it may have, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """How many connections a worker takes with the descriptors that it has; what is beyond is hung up on at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(soft - OWN_DESCRIPTORS, soft // 2))


def options(max_message: int, upload_s: float | None) -> list[Option]:
    """The options of a server; ``max_message`` in bytes, ``upload_s`` as long as an upload may take."""
    grace_s = max(AGE_GRACE_S, 2 * (upload_s or 0))
    return [
        ("grpc.max_receive_message_length", longest(max_message)),  # what is longer is refused, unread
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
        ("grpc.max_allowed_incoming_connections", most_connections()),
        ("grpc.server_handshake_timeout_ms", _ms(HANDSHAKE_S)),
        ("grpc.max_connection_idle_ms", _ms(IDLE_S)),
        ("grpc.max_connection_age_ms", _ms(AGE_S)),
        ("grpc.max_connection_age_grace_ms", _ms(grace_s)),
        ("grpc.keepalive_time_ms", _ms(PING_S)),
        ("grpc.keepalive_timeout_ms", _ms(PONG_S)),
        ("grpc.http2.lookahead_bytes", FIRST_WINDOW),
        ("grpc.http2.bdp_probe", 0),  # else windows grow with what a connection could take
        ("grpc.experimental.tcp_max_read_buffer_size", READ_BUFFER),
        ("grpc.experimental.tcp_max_read_chunk_size", READ_BUFFER),
        ("grpc.experimental.tcp_read_chunk_size", READ_BUFFER // 2),
        ("grpc.experimental.tcp_min_read_chunk_size", 256),
    ]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
