"""The server that is measured, in a process of its own, with an empty method beside its own ones.

    python -m benchmarks.serving_child STORE BACKEND  ->  "PORT SECONDS" on stdout once it serves; ends with its stdin

SECONDS is from the first line after the imports to when the port is open.
"""

import asyncio
import sys
from pathlib import Path
from time import perf_counter

import grpc

from recsys.recommender import Backend
from recsys.serving.fast_path import ServingState
from recsys.serving.reload import open_answers, watch
from recsys.serving.server import create_server
from recsys.serving.workers import imports_frozen

EMPTY_SERVICE = "recsys.bench.Empty"


async def empty(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
    """Answer nothing."""
    return b""


async def serve(store: Path, backend: Backend) -> None:
    """Serve until stdin closes."""
    begun = perf_counter()
    current = ServingState(open_answers(store, backend))
    server, port = await create_server(current, "127.0.0.1:0")
    handler = {"Call": grpc.unary_unary_rpc_method_handler(empty)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EMPTY_SERVICE, handler),))
    await server.start()
    following = asyncio.create_task(watch(current, store, backend))
    print(port, perf_counter() - begun, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    following.cancel()
    await server.stop(None)


if __name__ == "__main__":
    with imports_frozen():
        asyncio.run(serve(Path(sys.argv[1]), "lmdb" if sys.argv[2] == "lmdb" else "duckdb"))
