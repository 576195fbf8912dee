"""The tests' own guard: what is neither loopback nor a Unix socket is refused, here and in children."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
import socket
try:
    socket.create_connection(("192.0.2.1", 443), timeout=1)
except PermissionError as error:
    print(error)
"""


def test_a_child_that_tries_to_connect_is_refused_and_noted(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    environment = {**os.environ, "NETWORK_ATTEMPTS": str(attempts)}
    done = subprocess.run(
        [sys.executable, "-c", TRY], env=environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert "refused: neither loopback nor a Unix socket" in done.stdout
    assert "192.0.2.1" in attempts.read_text()


def test_loopback_and_unix_sockets_are_let_through(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))


def test_a_name_beyond_this_machine_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETWORK_ATTEMPTS", str(tmp_path / "attempts"))
    with pytest.raises(PermissionError):
        socket.getaddrinfo("huggingface.co", 443)
