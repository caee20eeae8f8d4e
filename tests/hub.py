"""A Hugging Face cache made by hand, and a hub of one's own: neither needs the network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def add_to_cache(cache: Path, repo_id: str, filename: str, write: Callable[[Path], object]) -> Path:
    """Put a file where huggingface_hub would; `write` is given the path to write to.

    Returns the path at which the hub's users see it.
    """
    folder = cache / f"models--{repo_id.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(filename.encode()).hexdigest()
    snapshot = folder / "snapshots" / COMMIT
    for parent in (blob.parent, snapshot, folder / "refs"):
        parent.mkdir(parents=True, exist_ok=True)
    # The writers look at the suffix.
    written = folder / filename
    write(written)
    written.rename(blob)
    (folder / "refs" / "main").write_text(COMMIT)
    (snapshot / filename).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot / filename


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Make huggingface_hub ask at `address`."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def serve(files: dict[str, bytes], status: int = 404) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine: yields its address and the list of requests it gets.

    Args:
        files: "owner/repo/filename" -> content.
        status: the answer for every other file.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            requests.append(f"{self.command} {self.path}")
            content = files.get(self.path.lstrip("/").replace("resolve/main/", ""))
            self.send_response(status if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound" if status == 404 else "Broken")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            return content or b""

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
