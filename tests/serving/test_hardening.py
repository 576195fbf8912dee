"""Clients that mean harm or break: told in the envelope or cut off, and the next one is served as ever."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from .real_gateway import CHAT, DEADLINE_SECONDS, Running, engine_at, running, wait_for
from .slow_engine import SlowEngine

SHORT = {
    "server__header_timeout_seconds": 0.5,
    "server__body_timeout_seconds": 0.5,
    "server__keep_alive_seconds": 1,
    "server__max_header_bytes": 8192,
}


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine()


@pytest.fixture
def server(tmp_path: Path, engine: SlowEngine) -> Iterator[Running]:
    with running(tmp_path, **SHORT) as made, engine_at(made.settings.place.socket("engine"), engine.answer):
        yield made
        assert httpx.get(f"{made.url}/health").status_code == 200


def everything(connection: socket.socket) -> bytes:
    """What is sent until the server closes the connection."""
    parts = []
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def status_and_code(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def ask(server: Running, data: bytes) -> bytes:
    with server.connect() as connection:
        connection.sendall(data)
        return everything(connection)


def posting(body_bytes: int, *headers: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: 127.0.0.1", b"content-length: %d" % body_bytes, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_client_that_says_nothing_is_cut_off(server: Running) -> None:
    began = time.monotonic()
    assert ask(server, b"") == b""
    assert time.monotonic() - began < 5


def test_a_head_that_drips_is_cut_off_however_steadily(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 10:
                connection.sendall(b"x: y\r\n")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 3
    answer = ask(server, b"GET /v1/models HTTP/1.1\r\n")
    assert status_and_code(answer) == (408, "headers_timeout")


def test_the_second_request_of_a_connection_is_not_waited_for_longer(server: Running) -> None:
    for rest in (b"GET /v1", b"\r\n\r\n", b""):
        with server.connect() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
            connection.sendall(rest)
            began = time.monotonic()
            everything(connection)
            assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /health HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nx: " + b"y" * 20_000,  # and no end of it
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 20_000,
    ],
)
def test_a_flood_of_headers_is_refused(server: Running, head: bytes) -> None:
    assert status_and_code(ask(server, head)) == (431, "headers_too_large")


def test_a_header_without_an_end_takes_no_memory_while_another_request_is_answered(
    server: Running, engine: SlowEngine
) -> None:
    engine.pause_seconds = 0.5
    body = json.dumps(CHAT).encode()
    with server.connect() as connection:
        connection.sendall(posting(len(body)) + body + b"GET /health HTTP/1.1\r\nx: ")
        sent = 0
        try:
            while sent < 64 << 20:
                sent += connection.send(b"y" * 65536)
        except OSError:
            pass
        assert sent < 8 << 20  # what the buffers of the system hold


NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS to a plain port
    b"NONSENSE / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nx: a\x00b\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nx : y\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
)


def test_what_is_no_http_is_refused_and_the_connection_closed(server: Running) -> None:
    for data in NO_HTTP:
        assert status_and_code(ask(server, data)) == (400, "malformed_request"), data


def test_a_request_to_become_a_websocket_is_a_request(server: Running) -> None:
    head = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert b" 101 " not in ask(server, head)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/profiles", "/v1/vector_stores", "/v1/embeddings"])
def test_a_body_of_200_mb_is_refused_before_any_of_it_is_read(server: Running, path: str) -> None:
    with server.connect() as connection:
        connection.sendall(posting(200 << 20, path=path.encode()))
        answer = connection.recv(65536)
    assert status_and_code(answer) == (413, "body_too_large")


def test_a_client_that_sends_all_of_it_first_still_reads_why(server: Running) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=b" " * (200 << 20), timeout=60)
    assert answer.status_code == 413


def test_a_body_without_a_length_is_cut_at_the_limit(server: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * (1 << 20)

    for path in ("/v1/chat/completions", "/v1/profiles"):
        answer = httpx.post(f"{server.url}{path}", content=chunks(), timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/profiles", b"/v1/files", b"/v1/embeddings"])
def test_a_body_that_drips_is_cut_off(server: Running, path: bytes) -> None:
    form = b"content-type: multipart/form-data; boundary=b"
    with server.connect() as connection:
        connection.sendall(posting(1000, form if path == b"/v1/files" else b"x: y", path=path))
        dripping = threading.Event()

        def drip() -> None:
            if path == b"/v1/files":
                connection.sendall(b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n')
            while not dripping.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        answer = connection.recv(65536)
        dripping.set()
        thread.join()
        assert time.monotonic() - began < 5
    assert status_and_code(answer) == (408, "body_timeout")


def test_a_body_of_which_nothing_comes_is_not_waited_for(server: Running) -> None:
    for path in (b"/v1/chat/completions", b"/v1/embeddings"):
        with server.connect() as connection:
            connection.sendall(posting(100, b"connection: close", path=path))
            assert status_and_code(everything(connection)) == (408, "body_timeout")


def test_an_upload_that_comes_slowly_but_comes_is_taken(server: Running) -> None:
    """Longer than body_timeout_seconds in all: every byte that comes buys time."""
    content = b"Screws are in the drawer.\n" * 4000
    form = httpx.Request(
        "POST", f"{server.url}/v1/files", files={"file": ("a.txt", content)}, data={"purpose": "assistants"}
    )
    data = form.read()
    with server.connect() as connection:
        kind = b"content-type: " + form.headers["content-type"].encode()
        connection.sendall(posting(len(data), kind, path=b"/v1/files"))
        step = len(data) // 20 + 1
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])
            time.sleep(0.05)
        assert b" 200 " in connection.recv(65536)


BROKEN = (
    b'{"model": "a", "model": "b"}',
    b"\xff\xfe{}",
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"[" * 1_000_000,
    b'{"model": "\\ud800", "messages": []}',
    b'{"a": ' + b"9" * 100_000 + b"}",
)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/profiles", "/v1/embeddings", "/v1/fine_tuning/jobs"]
)
def test_bodies_that_are_broken_are_told(server: Running, path: str) -> None:
    for body in BROKEN:
        answer = httpx.post(f"{server.url}{path}", content=body)
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


TRICKS = (
    *("%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..", "%00", "file%00", "a" * 5000, "%ff%fe", "%0a", "file-x%2f..", "*"),
    "%E2%80%AE",  # what follows is shown from right to left
)


@pytest.mark.parametrize(
    "path",
    ["/v1/files/{}", "/v1/files/{}/content", "/v1/models/{}", "/v1/fine_tuning/jobs/{}", "/v1/vector_stores/{}"],
)
def test_paths_that_play_tricks_lead_nowhere(server: Running, path: str) -> None:
    for name in TRICKS:
        target = path.format(name).encode()
        answer = ask(server, b"GET " + target + b" HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert int(answer.split()[1]) in (400, 404, 503), answer  # 503: nobody who knows collections is up here
        assert b"root:" not in answer


def test_a_nul_in_a_query_is_told(server: Running) -> None:
    assert httpx.get(f"{server.url}/v1/files?after=%00").status_code == 400


ADDRESSES = (
    {"type": "image_url", "image_url": {"url": "http://10.0.0.1/secret"}},
    {"type": "image_url", "image_url": "http://169.254.169.254/latest"},
    {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    {"type": "image_url", "image_url": {"url": " data:,x"}},
    {"type": "video_url", "video_url": {"url": "https://inner/x"}},
    {"type": "image_url", "image_url": {"url": "DATA:http://x"}},
)


def test_no_address_is_looked_up_for_a_client(server: Running, engine: SlowEngine) -> None:
    for part in ADDRESSES:
        body = {**CHAT, "messages": [{"role": "user", "content": [part]}]}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
        assert answer.status_code == 400
        assert "data: URL" in answer.json()["error"]["message"]
    assert engine.begun == 0


def test_no_page_of_another_origin_may_read_answers(server: Running) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for method in ("OPTIONS", "GET"):
        answer = httpx.request(method, f"{server.url}/v1/models", headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_connections_beyond_the_limit_are_told_and_closed(tmp_path: Path) -> None:
    with running(tmp_path, server__max_connections=3) as server:
        held = [server.connect() for _ in range(3)]
        wait_for(lambda: len(server.server.server_state.connections) == 3)
        answer = ask(server, b"")
        assert status_and_code(answer) == (503, "unavailable")
        assert b"retry-after" in answer
        held.pop().close()
        wait_for(lambda: len(server.server.server_state.connections) == 2)
        assert httpx.get(f"{server.url}/health").status_code == 200
        for connection in held:
            connection.close()


def test_a_client_that_does_not_read_frees_its_place(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=2_000_000)
    with (
        running(tmp_path, server__body_timeout_seconds=0.5) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
        server.connect() as connection,
    ):
        body = json.dumps({**CHAT, "stream": True}).encode()
        connection.sendall(posting(len(body)) + body)
        wait_for(lambda: engine.running == 1)
        wait_for(lambda: engine.running == 0)
        assert server.services.admission.running == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine_within_a_second(
    server: Running, engine: SlowEngine, stream: bool, figures: dict[str, object]
) -> None:
    engine.pieces, engine.pause_seconds = 1000, 0.02
    body = json.dumps({**CHAT, "stream": stream}).encode()
    connection = server.connect()
    connection.sendall(posting(len(body)) + body)
    wait_for(lambda: engine.running == 1)
    if stream:
        assert b"200 OK" in connection.recv(65536)
    connection.close()
    seconds = wait_for(lambda: engine.running == 0)
    assert seconds < 1
    wait_for(lambda: server.services.admission.running == 0, 1)
    figures[f"the engine is free after a client left ({'stream' if stream else 'whole'})"] = f"{seconds:.3f} s"


def test_one_that_leaves_while_it_waits_takes_no_turn(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=100, pause_seconds=0.02)
    with (
        running(tmp_path, server__max_running_requests=1) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        admission = server.services.admission
        body = json.dumps({**CHAT, "stream": True}).encode()
        first, second = server.connect(), server.connect()
        first.sendall(posting(len(body)) + body)
        wait_for(lambda: engine.running == 1)
        second.sendall(posting(len(body)) + body)
        wait_for(lambda: admission.waiting == 1)
        second.close()
        wait_for(lambda: admission.waiting == 0, 1)
        first.close()
        wait_for(lambda: admission.running == 0, 1)
        assert engine.begun == 1


def test_500_clients_killed_in_mid_stream_leave_nothing(tmp_path: Path, figures: dict[str, object]) -> None:
    engine = SlowEngine(pieces=10_000, pause_seconds=0.1)
    body = json.dumps({**CHAT, "stream": True}).encode()
    with (
        running(tmp_path, server__max_running_requests=1000) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        httpx.get(f"{server.url}/ready")
        tasks, descriptors = server.tasks(), open_descriptors()
        connections = []
        for _ in range(500):
            connection = server.connect()
            connection.sendall(posting(len(body)) + body)
            connections.append(connection)
        wait_for(lambda: engine.running == 500, 60)
        for connection in connections:
            assert b"200 OK" in connection.recv(65536)
        for connection in connections:  # a killed process sends a reset, not a good-bye
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()
        seconds = wait_for(lambda: engine.running == 0, 60)
        wait_for(lambda: server.services.admission.running == 0)
        wait_for(lambda: server.tasks() <= tasks)
        wait_for(lambda: not server.server.server_state.connections)
        wait_for(lambda: open_descriptors() <= descriptors + 1)
        figures["500 clients killed in mid-stream: all slots free after"] = f"{seconds:.2f} s"


def open_descriptors() -> int:
    """Without those of the database, of which each thread that asks it has some."""
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(FileNotFoundError):  # the folder itself, or one just closed
            found += "/state.db" not in os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    return found


def test_what_runs_is_finished_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=10, pause_seconds=0.1)
    with (
        running(tmp_path, server__drain_seconds=10, server__drain_notice_seconds=0.5) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(stream)
        server.server.should_exit = True
        wait_for(lambda: server.services.draining)
        assert httpx.get(f"{server.url}/ready").json() == {"status": "draining"}
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert len(list(stream)) == 9
        wait_for(lambda: not can_connect(server))


def test_a_stream_that_outlasts_the_stop_ends_with_an_error(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=1000, pause_seconds=0.1)
    with (
        running(tmp_path, server__drain_seconds=1) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(stream)
        server.server.should_exit = True
        with pytest.raises(openai.APIError, match="being stopped"):
            list(stream)
    assert engine.running == 0


def test_a_whole_answer_that_outlasts_the_stop_gets_503(tmp_path: Path) -> None:
    engine = SlowEngine(pieces=1000, pause_seconds=0.1)
    with (
        running(tmp_path, server__drain_seconds=1) as server,
        engine_at(server.settings.place.socket("engine"), engine.answer),
    ):
        threading.Timer(0.5, lambda: setattr(server.server, "should_exit", True)).start()
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=DEADLINE_SECONDS)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def can_connect(server: Running) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True
