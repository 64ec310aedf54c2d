"""The page's server: on this machine alone, for whoever has the address that was printed.

Every path begins with a token that nobody can guess. A request that names another host (a page that lets its own name
point here) or comes from another origin is refused, whatever it asks. The page may load nothing from anywhere else.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pseudolabel.errors import InputError, MachineError, RejectError
from pseudolabel.pipelines.review.session import ConflictError, Session

HOST = "127.0.0.1"
_MAX_BODY_BYTES = 16 << 20
_PAGE = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def serve(session: Session, port: int, ready: Callable[[str], None]) -> None:
    """Answer requests until somebody ends the review on the page, or interrupts this process.

    Args:
        port: 0 for any free one.
        ready: is given the page's address.

    Raises:
        MachineError: the port is taken.
    """
    token = secrets.token_urlsafe(24)
    try:
        server = _Server((HOST, port), _Handler)
    except OSError as error:
        raise MachineError(
            f"port {port} on {HOST}: {error.strerror}; give another --port, or 0 for any free one"
        ) from None
    server.session, server.token = session, token
    with server:
        ready(f"http://{HOST}:{server.server_port}/{token}/")
        server.serve_forever(poll_interval=0.2)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    session: Session
    token: str


class _RefusedError(Exception):
    """A request that is not answered; `code` is HTTP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pseudolabel", ""
    timeout = 60

    def do_GET(self) -> None:
        self._replied(self._get)

    def do_POST(self) -> None:
        self._replied(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told on the terminal: the address holds the token."""

    def _replied(self, work: Callable[[str], None]) -> None:
        try:
            work(self._asked())
        except _RefusedError as refused:
            self.close_connection = True
            self._send_json({"error": str(refused)}, refused.code)
        except ConflictError as error:
            self._send_json({"error": str(error)}, 409)
        except (InputError, RejectError) as error:
            self._send_json({"error": str(error)}, 400)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed

    def _asked(self) -> str:
        """The path behind the token, of a request that may be answered."""
        here = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in here:
            raise _RefusedError(403, "another host was asked for")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in here}:
            raise _RefusedError(403, "another page asks")
        token, _, rest = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _RefusedError(403, "not the address that was printed")
        return rest

    def _get(self, path: str) -> None:
        session = self.server.session
        if path in _PAGE:
            name, kind = _PAGE[path]
            self._send(files("pseudolabel.pipelines.review").joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
        elif path == "state":
            self._send_json(session.state())
        elif path == "next":
            self._send_scene(session.next())
        elif path == "object":
            self._send_scene(self._id())
        elif path == "image":
            self._send(session.jpeg(self._id()), "image/jpeg")
        elif path == "after":
            self._send_json({"id": session.after(self._id())})
        else:
            raise _RefusedError(404, "there is nothing here")

    def _post(self, path: str) -> None:
        said, session = self._body(), self.server.session
        if path == "answer":
            session.answer(said)
            self._send_json(session.state())
        elif path == "undo":
            self._send_scene(session.undo(str(said.get("key", ""))[:64]))
        elif path == "finish":
            self._send_json(session.bought())
            threading.Thread(target=self.server.shutdown, daemon=True).start()
        else:
            raise _RefusedError(404, "there is nothing here")

    def _send_scene(self, annotation_id: int | None) -> None:
        session = self.server.session
        scene = None if annotation_id is None else session.scene(annotation_id)
        self._send_json({"object": scene, "state": session.state()})

    def _id(self) -> int:
        values = parse_qs(urlsplit(self.path).query).get("id", [])
        try:
            return int(values[0])
        except (IndexError, ValueError):
            raise InputError("id: expected a whole number") from None

    def _body(self) -> dict[str, Any]:
        """What a page posts: only its own script can send JSON, as others would have to be let."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Type") != "application/json" or self.headers.get("Origin") is None:
            raise _RefusedError(403, "only the page itself may answer")
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            raise _RefusedError(413, f"at most {_MAX_BODY_BYTES} bytes are read")
        try:
            said = json.loads(self.rfile.read(int(length)))
        except ValueError:
            raise _RefusedError(400, "no JSON") from None
        if not isinstance(said, dict):
            raise _RefusedError(400, "expected an object")
        return said

    def _send_json(self, value: Any, code: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", code)

    def _send(self, data: bytes, kind: str, code: int = 200) -> None:
        self.send_response(code)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
