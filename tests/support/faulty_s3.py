"""A small S3 server on loopback that misbehaves on request, as networks and lesser stores do."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyS3(ThreadingHTTPServer):
    """Objects in memory, with counters of faults still to come. Serves GET, PUT and DELETE on any path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.gets = 0
        self.cut_bodies = 0
        """GETs whose connection closes in the middle of the body."""
        self.lost_replies = 0
        """PUTs that are carried out and whose connection closes without an answer."""
        self.conflicts = 0
        """PUTs that are answered 409 and not carried out."""
        self.ignores_conditions = False
        self.ignores_ranges = False
        self.keys_listed: list[str] = []
        """What a listing answers, in this order."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spend(self, counter: str) -> bool:
        with self.lock:
            left = getattr(self, counter)
            setattr(self, counter, max(0, left - 1))
            return bool(left > 0)


@contextmanager
def serving() -> Iterator[FaultyS3]:
    """Runs the server in a thread."""
    with FaultyS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def do_GET(self) -> None:
        self.server.gets += 1
        if "list-type=2" in self.path:
            rows = "".join(
                f'<Contents><Key>{key}</Key><Size>1</Size><ETag>"x"</ETag>'
                "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
                for key in self.server.keys_listed
            )
            return self.answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())
        if self.path not in self.server.objects:
            return self.fail(404, "NoSuchKey")
        data = self.server.objects[self.path]
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span is None or self.server.ignores_ranges:
            return self.answer(200, data)
        start, end = int(span[1]), min(int(span[2]) + 1, len(data))
        where = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        return self.answer(206, data[start:end], where)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.spend("conflicts"):
            return self.fail(409, "ConditionalRequestConflict")
        with self.server.lock:
            conditional = self.headers.get("If-None-Match") == "*" and not self.server.ignores_conditions
            refused = conditional and self.path in self.server.objects
            if not refused:
                self.server.objects[self.path] = data
        if refused:
            return self.fail(412, "PreconditionFailed")
        if self.server.spend("lost_replies"):
            self.close_connection = True
            return None
        return self.answer(200, b"")

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path, None)
        self.answer(204, b"")

    def fail(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>as asked</Message></Error>".encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and status in {200, 206} and self.server.spend("cut_bodies"):
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps test output clean."""
