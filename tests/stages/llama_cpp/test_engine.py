"""The client of llama.cpp's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from stages.llama_cpp.engine import LlamaCpp

REPLIES = {"/v1/models": {"data": [{"meta": {"n_ctx_train": 7}}]}, "/tokenize": {"tokens": [1, 2]}}


class Impatient(BaseHTTPRequestHandler):
    """Announces that connections stay open, and closes each after one reply.

    llama.cpp does the same to a connection that is idle for five seconds.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = json.dumps(REPLIES[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
        self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Impatient) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure(address: str) -> None:
    model = LlamaCpp(address, "key")
    assert model.context == 7
    assert [model.tokenize("a b") for _ in range(3)] == [[1, 2]] * 3
