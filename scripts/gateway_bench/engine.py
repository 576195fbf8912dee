"""The synthetic engine: vLLM's routes with ready-made answers, far faster than any gateway before it.

    python -m gateway_bench.engine --socket PATH --fd N --model NAME

Serves the same on a Unix socket and on the listening TCP socket N. As vLLM does, it works in steps: in each, every
open stream gets one event. How many there are and how long a step takes is set from outside: POST /bench/behaviour.
GET /bench/counts tells how many requests are open, and how many clients left before their answer was done.
"""

import argparse
import asyncio
import gc
import json
import socket
import time
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httptools
import uvloop

from gateway_bench import answers

BACKLOG = 4096


@dataclass(frozen=True)
class Behaviour:
    """tokens: of each answer. step_seconds: between two events of a stream; a whole answer takes all its steps.

    stamped: each event's content is the monotonic clock in nanoseconds instead of a word.
    """

    tokens: int = 32
    step_seconds: float = 0.0
    stamped: bool = False


@dataclass
class Counts:
    open: int = 0
    answered: int = 0
    left: int = 0
    connections: int = 0


class Engine:
    def __init__(self, model: str, loop: asyncio.AbstractEventLoop):
        self._model = model.encode()
        self._models = answers.models(model, int(time.time()))
        self._loop = loop
        self._streams: dict[Connection, Stream] = {}
        self._stepping = False
        self._number = 0
        self.counts = Counts()
        self.behave(Behaviour())
        self._tell_time()

    def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._text = answers.text(behaviour.tokens)

    def _tell_time(self) -> None:
        """The date and the second, made once a second as uvicorn does."""
        self._date, self._created = formatdate(usegmt=True).encode(), int(time.time())
        self._loop.call_later(1.0, self._tell_time)

    def answer(self, connection: "Connection", path: bytes, body: bytes) -> None:
        match path:
            case b"/v1/chat/completions":
                self._chat(connection, json.loads(body))
            case b"/health" | b"/ping":
                connection.send(self._whole(b"", b"text/plain"))
            case b"/v1/models":
                connection.send(self._whole(self._models))
            case b"/v1/load_lora_adapter" | b"/v1/unload_lora_adapter":
                connection.send(self._whole(b"Success", b"text/plain; charset=utf-8"))
            case b"/bench/behaviour":
                self.behave(Behaviour(**json.loads(body)))
                connection.send(self._whole(b"{}"))
            case b"/bench/counts":
                connection.send(self._whole(answers.as_json(asdict(self.counts))))
            case _:
                connection.send(self._whole(answers.error(404, "Not Found"), status=404, reason=b"Not Found"))

    def _chat(self, connection: "Connection", asked: dict[str, Any]) -> None:
        self._number += 1
        self.counts.open += 1
        connection.busy = True
        request_id = b"chatcmpl-%032x" % self._number
        tokens = self._behaviour.tokens
        if asked.get("stream"):
            with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            events = answers.Events(request_id, self._created, self._model, tokens, with_usage=with_usage)
            connection.send(answers.STREAM_HEAD % self._date + answers.chunked(events.first()))
            self._streams[connection] = Stream(connection, events, tokens)
            self._step_soon()
            return
        data = answers.completion(request_id, self._created, self._model, self._text, tokens)
        if self._behaviour.step_seconds:
            self._loop.call_later(tokens * self._behaviour.step_seconds, self._finish, connection, data)
        else:
            self._finish(connection, data)

    def _finish(self, connection: "Connection", data: bytes) -> None:
        if connection.busy:
            connection.send(self._whole(data))
            self._done(connection)

    def _step_soon(self) -> None:
        if self._stepping:
            return
        self._stepping = True
        if self._behaviour.step_seconds:
            self._loop.call_later(self._behaviour.step_seconds, self._step)
        else:
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._stepping = False
        stamped = self._behaviour.stamped
        ended = [stream for stream in self._streams.values() if stream.step(stamped)]
        for stream in ended:
            del self._streams[stream.connection]
            self._done(stream.connection)
        if self._streams:
            self._step_soon()

    def _done(self, connection: "Connection") -> None:
        connection.busy = False
        self.counts.open -= 1
        self.counts.answered += 1

    def lost(self, connection: "Connection") -> None:
        self.counts.connections -= 1
        if connection.busy:
            connection.busy = False
            self._streams.pop(connection, None)
            self.counts.open -= 1
            self.counts.left += 1

    def _whole(
        self, data: bytes, kind: bytes = b"application/json", *, status: int = 200, reason: bytes = b"OK"
    ) -> bytes:
        return answers.JSON_HEAD % (status, reason, self._date, len(data), kind) + data


class Stream:
    def __init__(self, connection: "Connection", events: answers.Events, tokens: int):
        self.connection = connection
        self._events = events
        self._tokens = tokens
        self._said = 0

    def step(self, stamped: bool) -> bool:
        """Sends the next event. Returns: whether it was the last."""
        word = b"%d" % time.monotonic_ns() if stamped else answers.WORDS[self._said % len(answers.WORDS)]
        piece = answers.chunked(self._events.token(self._said, word))
        self._said += 1
        if self._said < self._tokens:
            self.connection.send(piece)
            return False
        usage = self._events.usage()
        ending = (answers.chunked(usage) if usage else b"") + answers.chunked(answers.DONE)
        self.connection.send(piece + ending + answers.STREAM_END)
        return True


class Connection(asyncio.Protocol):
    """One client's connection; on_… are called by the parser."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._path = self._body = b""
        self.busy = False  # an answer is owed or under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._engine.counts.connections += 1
        self.send = transport.write  # type: ignore[attr-defined]
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._engine.lost(self)

    def on_url(self, part: bytes) -> None:
        self._path += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        path, body = self._path, self._body
        self._path = self._body = b""
        self._engine.answer(self, path, body)


async def serve(model: str, path: Path, listener: socket.socket) -> None:
    """Until it is cancelled."""
    loop = asyncio.get_running_loop()
    engine = Engine(model, loop)
    tcp = await loop.create_server(lambda: Connection(engine), sock=listener, backlog=BACKLOG)
    unix = await loop.create_unix_server(lambda: Connection(engine), str(path), backlog=BACKLOG)
    async with tcp, unix:
        await asyncio.Future()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway_bench.engine")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    gc.freeze()
    uvloop.run(serve(options.model, options.socket, socket.socket(fileno=options.fd)))


if __name__ == "__main__":
    main()
