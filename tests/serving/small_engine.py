"""`python small_engine.py SOCKET`: stands where vLLM does, and answers every chat with the same words."""

import json
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

ANSWER = {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Aye."}}]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(ANSWER)

    def _send(self, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """One that asks after its health may not wait for the answer: nothing to log."""


if __name__ == "__main__":
    sys.stdout.write("small engine: started\n")
    sys.stdout.flush()
    Server(sys.argv[1], Handler).serve_forever()
