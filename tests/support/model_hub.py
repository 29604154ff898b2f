"""A model hub on this machine that speaks enough of the Hugging Face Hub's protocol for its own client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    repository: tuple[str, Path]
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _answer(self, *, body: bool) -> None:
        name, folder = self.repository
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
            self._send(json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode(), body)
        elif path.startswith(f"/api/models/{name}/revision/"):
            self._missing("RevisionNotFound")
        elif path == f"/api/models/{name}/tree/{COMMIT}":
            files = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": _digest(one)}
                for one in sorted(folder.iterdir())
            ]
            self._send(json.dumps(files).encode(), body)
        elif path.startswith(f"/{name}/resolve/{COMMIT}/"):
            file = folder / path.rpartition("/")[2]
            self._send(file.read_bytes(), body, {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT})
        else:
            self._missing("RepoNotFound")

    def _send(self, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def model_hub(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository.

    Args:
        name: ``OWNER/NAME``.
        folder: its files.

    Yields:
        The address of the hub, and the paths that it is asked for.
    """
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"repository": (name, folder), "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
