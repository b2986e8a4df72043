"""The newest scenes -> a web page, live pictures, health and metrics.

The server writes nothing, and reads only the page's own three files from disk. It binds only to the address it is
given. On a loopback address it answers only requests for that host, so that no page from elsewhere can read it. It
supports only GET and HEAD, and takes no parameters but numbers and a style.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import ipaddress
import os
import socket
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ..errors import UsageError
from ..sinks.draw import STYLES, draw_scene
from ..sinks.hide import MARGIN, is_cover
from ..sinks.snapshot import as_jpeg
from ..template import load_template
from ..types import Scene
from ..values import host_and_port
from .connections import BACKLOG, LONGEST_HEAD, SEND_BUFFER, Connection, end_late_ones
from .state import State

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers of every answer, including refusals."""
SILENT_S = 10.0
"""Time in seconds without a frame after which the server reports that it is unhealthy."""
LIVE_FPS = 15.0
AGAIN_S = 2.0
"""Time in seconds without a new picture after which the last one is sent again. This detects clients that do not read,
and browsers show a picture only when the next one begins."""
LIVE_WIDTH = 960
"""Maximum width in pixels of the pictures on the page. Wider pictures are reduced."""
MOST_WATCHERS = 8
"""Maximum number of live pictures that are drawn at once."""
BOUNDARY = "picture"
STREAM = f"multipart/x-mixed-replace; boundary={BOUNDARY}"


class WebServer:
    """A server for a `State`, in its own thread. A context manager."""

    def __init__(
        self,
        state: State,
        address: str,
        *,
        style: str = "wireframe",
        margin: float = MARGIN,
        pictures: bool = True,
    ) -> None:
        """`address`: HOST:PORT; port 0 takes a free one. `style`: style of live pictures for which a request names no
        other; where it covers faces, no request gets another. `margin`: as `draw_scene`. `pictures`: whether pictures
        are served at all. Raises UsageError where the server cannot listen there."""
        host, port = _host_and_port(address)
        try:
            self._socket = socket.create_server((host, port), family=_family(host))
            # Connections inherit this option.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise UsageError(
                f"cannot serve {address}: {why}; choose another port, or an address of this machine"
            ) from error
        self.address = f"{_bracketed(host)}:{self._socket.getsockname()[1]}"
        self._ending = threading.Event()
        show = Showing(style, margin, pictures)
        app = application(state, self._ending, allowed_hosts(host), show)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            backlog=BACKLOG,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            # Clients could fill the log with warnings.
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="web", daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        watching = asyncio.create_task(end_late_ones(self._server.server_state.connections))
        try:
            await self._server.serve([self._socket])
        finally:
            watching.cancel()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{self.address}/"

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all answers and close the port."""
        self._ending.set()
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Showing:
    """The live pictures that requests may get."""

    style: str = "wireframe"
    margin: float = MARGIN
    pictures: bool = True

    @property
    def styles(self) -> tuple[str, ...]:
        """Styles that a request may ask for: only the own one, where it covers faces."""
        return (self.style,) if is_cover(self.style) else STYLES


def application(state: State, ending: threading.Event, hosts: list[str], show: Showing = Showing()) -> ForThisHost:
    """Return the application with all routes. `ending`: when set, live pictures stop. `hosts`: host names to answer
    for. `show`: the pictures that requests may get."""
    facts, pictures = _Facts(state, show), _LivePictures(state, ending, show)
    answers = {
        **dict.fromkeys(PAGES, page),
        "/api/state": facts.summary,
        "/api/triangles": triangles,
        "/api/vertices/{source:place}": facts.vertices,
        "/live/{source:place}.mjpg": pictures.answer,
        "/healthz": facts.health,
        "/metrics": facts.metrics,
    }
    return ForThisHost(
        Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in answers.items()]), hosts
    )


def page(request: Request) -> Response:
    """Answer with one of the page's own files."""
    name, kind = PAGES[request.url.path]
    text = importlib.resources.files(__package__).joinpath("page", name).read_bytes()
    return Response(text, media_type=kind)


def triangles(request: Request) -> Response:
    """Answer with the triangles (T, 3) as uint32, little-endian."""
    return Response(load_template().triangles.astype("<u4").tobytes(), media_type="application/octet-stream")


class _Facts:
    """Answers about the newest scenes without pixels."""

    def __init__(self, state: State, show: Showing) -> None:
        self._state = state
        self._show = show

    def summary(self, request: Request) -> Response:
        return JSONResponse({**self._state.summary(), "pictures": self._show.pictures})

    def vertices(self, request: Request) -> Response:
        """Answer with the vertices (V, 3) of the largest face as float32, little-endian, mm, head frame; 204 without a
        face."""
        face = self._state.largest_face(request.path_params["source"])
        if face is None:
            return Response(status_code=204)
        return Response(face.vertices.astype("<f4").tobytes(), media_type="application/octet-stream")

    def health(self, request: Request) -> Response:
        silent = self._state.silent_s()
        healthy = silent < SILENT_S
        return JSONResponse({"healthy": healthy, "silent_s": round(silent, 2)}, 200 if healthy else 503)

    def metrics(self, request: Request) -> Response:
        return Response(self._state.metrics(), media_type=CONTENT_TYPE_LATEST)


class _LivePictures:
    """Live pictures for at most `MOST_WATCHERS` clients at once."""

    def __init__(self, state: State, ending: threading.Event, show: Showing) -> None:
        self._state = state
        self._ending = ending
        self._show = show
        self._watchers = threading.BoundedSemaphore(MOST_WATCHERS)

    async def answer(self, request: Request) -> Response:
        """Answer with the pictures of a source, or say why there are none."""
        source = request.path_params["source"]
        style = request.query_params.get("style", self._show.style)
        if not self._show.pictures:
            return JSONResponse({"error": "this server shows no pictures (--no-pictures)"}, 403)
        if style not in self._show.styles:
            return JSONResponse({"error": f"styles are {', '.join(self._show.styles)}"}, 400)
        if self._state.scene(source) is None:
            return JSONResponse({"error": "unknown source; see /api/state"}, 404)
        if request.method == "HEAD":
            answer = Response(media_type=STREAM)
            del answer.headers["content-length"]
            return answer
        if not self._watchers.acquire(blocking=False):
            return JSONResponse({"error": f"{MOST_WATCHERS} live pictures are already open; close one"}, 503)
        return _Watched(self._parts(source, style), self._watchers)

    async def _parts(self, source: int, style: str) -> AsyncIterator[bytes]:
        """Yield each new picture of a source as a part of the answer, and the last one again after `AGAIN_S`."""
        shown, sent_at, part = 0, 0.0, b""
        while not self._ending.is_set():
            found = self._state.scene(source)
            now = time.monotonic()
            new = found is not None and found[1] != shown
            if found is not None and new:
                shown = found[1]
                picture = await run_in_threadpool(jpeg, found[0], style, self._show.margin)
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                part = head.encode() + picture + b"\r\n"
            if new or now - sent_at > AGAIN_S:
                sent_at = now
                yield part
            await asyncio.sleep(1 / LIVE_FPS)


class _Place(IntegerConvertor):
    """The place of a source in a path, limited to the digits that a number may have."""

    regex = "[0-9]{1,20}"


register_url_convertor("place", _Place())


class _Watched(StreamingResponse):
    """A live picture that frees its slot when it ends, however it ends."""

    def __init__(self, pictures: AsyncIterator[bytes], watchers: threading.BoundedSemaphore) -> None:
        super().__init__(pictures, media_type=STREAM)
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watchers.release()


class ForThisHost:
    """An application that answers only requests for `hosts` ("*" for any), and adds `HEADERS` to every answer."""

    def __init__(self, app: Starlette, hosts: list[str]) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, by the ASGI protocol."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        host = without_port(Headers(scope=scope).get("host", ""))
        if "*" in self._hosts or host in self._hosts:
            await self.app(scope, receive, send_with_headers)
        else:
            await PlainTextResponse("this host is not served here", 400)(scope, receive, send_with_headers)


def jpeg(scene: Scene, style: str, margin: float = MARGIN) -> bytes:
    """Draw a scene and encode it as JPEG, at most `LIVE_WIDTH` wide."""
    (known,) = (name for name in STYLES if name == style)
    return as_jpeg(draw_scene(scene, style=known, margin=margin), LIVE_WIDTH)


def allowed_hosts(host: str) -> list[str]:
    """Return the host names that requests may use: the machine's own for a loopback address, all for any other."""
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        return ["localhost", "127.0.0.1", "[::1]", _bracketed(host)]
    return ["*"]


def without_port(host: str) -> str:
    """Return the host of a request without its port: `localhost:8080` -> `localhost`, `[::1]:8080` -> `[::1]`."""
    return host.lower().partition("]")[0] + "]" if host.startswith("[") else host.lower().partition(":")[0]


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        return host_and_port(address)
    except ArgumentTypeError as error:
        raise UsageError(f"cannot serve {error}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
