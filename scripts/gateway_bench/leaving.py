"""Clients that ask and read until they are killed: the request comes on standard input.

python -m gateway_bench.leaving --port N --clients N
"""

import argparse
import asyncio
import sys

import uvloop

from gateway_bench.world import DESCRIPTORS
from local_llm.descriptors import allow_descriptors


class Reader(asyncio.Protocol):
    def __init__(self, request: bytes):
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]


async def read(port: int, clients: int, request: bytes) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(clients):
        await loop.create_connection(lambda: Reader(request), "127.0.0.1", port)
    await asyncio.Future()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway_bench.leaving")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    options = parser.parse_args()
    allow_descriptors(DESCRIPTORS)
    uvloop.run(read(options.port, options.clients, sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
