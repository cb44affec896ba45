"""A proxy on loopback in front of a real S3 server, which spoils requests by a seeded schedule and forwards the rest.

Requests are forwarded word for word, with the `Host` that the client signed, so that signatures hold. What is injected
to which request depends on the seed and the request alone, never on the order in which several clients come.
"""

import hashlib
import http.client
import re
import select
import socket
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal[
    "500", "503", "expired", "expired_400", "denied",
    "reset", "silence", "delay", "cut", "stall", "short", "lost_reply", "none",
]  # fmt: skip

ERRORS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "expired": (403, "ExpiredToken"),
    "expired_400": (400, "ExpiredToken"),  # AWS's own status for it
    "denied": (403, "AccessDenied"),
}
"""Answers given in the server's place: status and code."""

TRANSIENT: tuple[Fault, ...] = ("500", "503", "reset", "delay", "cut", "short", "lost_reply")
"""What a store recovers from, and costs no client's whole read timeout."""

_HOP_BY_HOP = frozenset({"connection", "expect", "transfer-encoding", "keep-alive"})
_LONGEST_SILENCE_S = 60.0
_DELAY_S = 0.2
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which requests are spoilt, and how.

    `reset` breaks the connection before the request is forwarded, `lost_reply` after it was carried out. Of the
    body, `cut` sends half and closes, `stall` sends half and then nothing, `short` sends half with headers that
    call it whole. `silence` answers nothing. `none` only calls `before`.
    """

    fault: Fault
    method: str = "GET"
    """Regular expression for the whole method."""
    path: str = ""
    """Regular expression that is found in the decoded path and query."""
    skip: int = 0
    """Matching requests that pass first."""
    times: int | None = None
    """Most injections in all."""
    each: int | None = None
    """Most injections to one and the same request (method, path and range)."""
    chance: float = 1.0
    before: Callable[[], None] | None = None
    """Called with each injection, before the server is asked."""


class FaultProxy(ThreadingHTTPServer):
    """Listens on a free port; `rules` may be replaced while it runs. The first rule that applies is taken."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, rules: Sequence[Rule] = (), seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.seed = seed
        self.requests = 0
        self.injected: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.rules = tuple(rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    @rules.setter
    def rules(self, rules: Sequence[Rule]) -> None:
        """Replaces the schedule; its counts begin anew."""
        with self._lock:
            self._rules = tuple(rules)
            self._seen: Counter[int] = Counter()
            self._done: Counter[int] = Counter()
            self._asked: Counter[tuple[int, str]] = Counter()
            self._spoilt: Counter[tuple[int, str]] = Counter()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self, method: str, path: str, span: str) -> Rule | None:
        """The rule for a request, if any; counts it."""
        request = f"{method} {path} {span}"
        with self._lock:
            self.requests += 1
            for number, rule in enumerate(self._rules):
                if re.fullmatch(rule.method, method) and re.search(rule.path, path) and self._falls(number, request):
                    self._done[number] += 1
                    self._spoilt[number, request] += 1
                    self.injected[rule.fault] += 1
                    return rule
        return None

    def _falls(self, number: int, request: str) -> bool:
        rule = self._rules[number]
        self._seen[number] += 1
        self._asked[number, request] += 1
        if self._seen[number] <= rule.skip or self._done[number] >= (rule.times or self._done[number] + 1):
            return False
        if rule.each is not None and self._spoilt[number, request] >= rule.each:
            return False
        key = f"{self.seed} {number} {self._asked[number, request]} {request}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") < rule.chance * 2**64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is what this is for."""


@contextmanager
def proxying(upstream: str, rules: Sequence[Rule] = (), seed: int = 0) -> Iterator[FaultProxy]:
    """Runs a proxy in a thread."""
    with FaultProxy(upstream, rules, seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@contextmanager
def never_accepting() -> Iterator[str]:
    """The address of a listener whose queue is full: the kernel drops what knocks, so connecting times out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for each in waiting:
                each.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        rule = self.server.choose(self.command, urllib.parse.unquote(self.path), self.headers.get("Range", ""))
        fault = "none" if rule is None else rule.fault
        if rule is not None and rule.before is not None:
            rule.before()
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            return self.answer(status, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else text)
        if fault == "reset":
            return self.reset()
        if fault == "silence":
            return self.keep_silent()
        if fault == "delay":
            select.select([self.connection], [], [], _DELAY_S)
        status, headers, reply = self.forward(body)
        if fault == "lost_reply":
            return self.reset()
        return self.answer(status, headers, reply, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Asks the server; its status, headers and whole body."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            reply = connection.getresponse()
            headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP_BY_HOP]
            return reply.status, headers, reply.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str = "none") -> None:
        half = len(body) // 2
        if fault == "short":
            body = body[:half]
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:half] if fault in {"cut", "stall"} else body)
        if fault == "stall":
            self.keep_silent()
        self.close_connection = self.close_connection or fault in {"cut", "stall"}

    def reset(self) -> None:
        """Ends the connection as a dying machine does: RST, no FIN."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.connection.close()

    def keep_silent(self) -> None:
        """Until the client gives up."""
        self.wfile.flush()
        select.select([self.connection], [], [], _LONGEST_SILENCE_S)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keeps test output clean."""
