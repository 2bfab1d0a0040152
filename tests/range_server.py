"""A web server on this machine with ranges, ETags and lists of folders, which counts what it is asked for and may fail."""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from wildfern.ssl.data import remote


class Files(dict[str, bytes]):
    """Contents by path ("/a/x.tar"), the requests so far, and answers that are given instead, each once."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.requests: list[tuple[str, str]] = []  # method and path
        self.failures: dict[str, list[int]] = {}  # status codes of the next answers by path; 0: the content
        self.ranges = True
        self.tells = True  # an ETag
        self.down_after: int | None = None  # requests, after which none is answered with content
        self.silence = 0.0  # s before each content
        self.cut: dict[str, list[int]] = {}  # bytes by path after which the next answers end; -1: none

    def gets(self, path: str) -> int:
        return self.requests.count(("GET", path))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_content: bool) -> None:
        files = self.files
        files.requests.append((self.command, self.path))
        if (failures := files.failures.get(self.path)) and (status := failures.pop(0)):
            return self._send(status, b"", {}, with_content)
        if files.down_after is not None and len(files.requests) > files.down_after:
            return self._send(503, b"", {}, with_content)
        if self.path.endswith("/"):
            links = "".join(f'<a href="{path}">x</a>' for path in files if path.rpartition("/")[0] + "/" == self.path)
            return self._send(200, links.encode(), {"Content-Type": "text/html"}, with_content)
        if self.path not in files:
            return self._send(404, b"", {}, with_content)
        content, status = files[self.path], 200
        headers = {"Content-Type": "application/x-tar"}
        if files.tells:
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and files.ranges:
            start, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content, status = content[start : last + 1], 206
        self._send(status, content, headers, with_content)

    def _send(self, status: int, content: bytes, headers: dict[str, str], with_content: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_content:
            return
        time.sleep(self.files.silence)
        cuts = self.files.cut.get(self.path)
        if cuts and (cut := cuts.pop(0)) >= 0:
            self.wfile.write(content[:cut])
            self.close_connection = True
        else:
            self.wfile.write(content)


@contextmanager
def served() -> Iterator[Files]:
    """The files of a server that runs during the block; put contents into them."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.files = Files(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("no_proxy", "127.0.0.1")
            yield handler.files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def served_to(cache: Path) -> Iterator[Files]:
    """`served`, with copies in the folder `cache` and no pause after failures; skips the test without the extra `remote`."""
    pytest.importorskip("aiohttp")
    with pytest.MonkeyPatch.context() as patch, served() as files:
        patch.setenv("WILDFERN_CACHE", str(cache))
        patch.setattr(remote, "PAUSE", 0.001)
        yield files
