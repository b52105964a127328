"""What a backend answers: its status counts, and nothing else of it costs anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mesh.telemetry.exports import MAX_ANSWER, StatusOnly

#: What the backend would say if it were let: 200 MB.
PIECE, PIECES = 1 << 20, 200


class Backend(ThreadingHTTPServer):
    """Answers as it is told, and counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.said, self.callers = 0, set[int]()
        self.over = threading.Event()
        self.paths: list[str] = []

    def at(self, path: str) -> str:
        """Where it answers in one way."""
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.callers.add(self.client_address[1])
        self.server.paths.append(self.path)
        if self.path == "/endless":
            self._talk()
        elif self.path == "/elsewhere":
            self._answer(307, b"", self.server.at("other"))
        else:
            self._answer(200, b"x" * 100)

    def _answer(self, status: int, text: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("location", location)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _talk(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(PIECES):
                self.wfile.write(b"x" * PIECE)
                self.server.said += PIECE
        except OSError:
            self.close_connection = True
        self.server.over.set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def test_an_answer_without_an_end(backend: Backend) -> None:
    """A backend that talks is hung up on, and nothing of it is kept."""
    with StatusOnly() as session:
        answer = session.post(backend.at("endless"), b"spans", timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")
    assert backend.over.wait(30)
    assert backend.said < PIECES * PIECE / 4


def test_no_other_address(backend: Backend) -> None:
    """A backend sends nobody anywhere else."""
    with StatusOnly() as session:
        assert session.post(backend.at("elsewhere"), b"spans", timeout=10).status_code == 307
    assert backend.paths == ["/elsewhere"]


def test_one_connection(backend: Backend) -> None:
    """Short answers leave the connection fit for the next request."""
    assert MAX_ANSWER > 100
    with StatusOnly() as session:
        for _ in range(3):
            assert session.post(backend.at("short"), b"spans", timeout=10).text == ""
    assert len(backend.callers) == 1
