"""The barest gateway in Python: Starlette, uvicorn (uvloop, httptools) and aiohttp's client, nothing in between.

python -m gateway_bench.passthrough --fd N --socket PATH
"""

import argparse
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def create_app(engine: Path) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.UnixConnector(path=str(engine), limit=0)
        async with aiohttp.ClientSession("http://engine", connector=connector, auto_decompress=False) as session:
            app.state.session = session
            yield

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])], lifespan=lifespan)


async def forward(request: Request) -> Response:
    body = await request.body()
    headers = {"content-type": "application/json"}
    answer = await request.app.state.session.request(
        request.method, request.url.path, data=body or None, headers=headers
    )
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return StreamingResponse(pieces(answer), media_type="text/event-stream")
    async with answer:
        return Response(await answer.read(), answer.status, media_type=kind)


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway_bench.passthrough")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args()
    config = uvicorn.Config(
        create_app(options.socket), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
