"""The newest scenes -> a web page, live pictures, health and metrics. Nothing is written; what is read is its own page.

Listens on the address it is given and nowhere else; on a loopback address it answers requests for that host alone, so
that no page from elsewhere can look in. Only GET and HEAD, no parameters but numbers and a style.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import ipaddress
import os
import socket
import threading
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator
from types import TracebackType

import cv2
import numpy as np
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..arguments import host_and_port
from ..draw import STYLES, draw_scene
from ..errors import UsageError
from ..template import load_template
from ..types import Scene
from .state import State

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
SILENT_S = 10.0
"""Without a frame, after which this is not healthy."""
LIVE_FPS = 15.0
LIVE_WIDTH = 960
"""Pixels: wider pictures are reduced for the page."""
MOST_WATCHERS = 8
"""Live pictures that are drawn at once."""
BOUNDARY = "picture"


class WebServer:
    """Serves a `State` in a thread of its own. A context manager."""

    def __init__(self, state: State, address: str) -> None:
        """`address`: HOST:PORT; port 0 takes a free one. Raises UsageError where it cannot listen there."""
        host, port = _host_and_port(address)
        try:
            self._socket = socket.create_server((host, port), family=_family(host))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise UsageError(
                f"cannot serve {address}: {why}; choose another port, or an address of this machine"
            ) from error
        self.address = f"{_bracketed(host)}:{self._socket.getsockname()[1]}"
        self._ending = threading.Event()
        app = application(state, self._ending, allowed_hosts(host))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.address}/"

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all answers and let the port go."""
        self._ending.set()
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def application(state: State, ending: threading.Event, hosts: list[str]) -> Starlette:
    """Everything that is answered. `ending`: live pictures stop when it is set; `hosts`: that are answered for."""
    watchers = threading.BoundedSemaphore(MOST_WATCHERS)

    def page(request: Request) -> Response:
        name, kind = PAGES[request.url.path]
        text = importlib.resources.files(__package__).joinpath("page", name).read_bytes()
        return Response(text, media_type=kind, headers=HEADERS)

    def summary(request: Request) -> Response:
        return JSONResponse(state.summary(), headers=HEADERS)

    def mesh(request: Request) -> Response:
        """(T, 3) uint32, little-endian."""
        triangles = load_template().triangles.astype("<u4")
        return Response(triangles.tobytes(), media_type="application/octet-stream", headers=HEADERS)

    def vertices(request: Request) -> Response:
        """(V, 3) float32, little-endian, mm, head frame: of the largest face; empty (204) where there is none."""
        face = state.largest_face(request.path_params["source"])
        if face is None:
            return Response(status_code=204, headers=HEADERS)
        data = face.vertices.astype("<f4").tobytes()
        return Response(data, media_type="application/octet-stream", headers=HEADERS)

    async def live(request: Request) -> Response:
        style = request.query_params.get("style", "wireframe")
        if style not in STYLES:
            return JSONResponse({"error": f"styles are {', '.join(STYLES)}"}, 400, HEADERS)
        if state.scene(request.path_params["source"]) is None:
            return JSONResponse({"error": "there is no such source"}, 404, HEADERS)
        if not watchers.acquire(blocking=False):
            return JSONResponse({"error": f"{MOST_WATCHERS} live pictures are open already"}, 503, HEADERS)

        async def pictures() -> AsyncIterator[bytes]:
            shown = 0
            try:
                while not ending.is_set():
                    found = state.scene(request.path_params["source"])
                    if found is not None and found[1] != shown:
                        shown = found[1]
                        picture = await run_in_threadpool(jpeg, found[0], style)
                        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                        yield head.encode() + picture + b"\r\n"
                    await asyncio.sleep(1 / LIVE_FPS)
            finally:
                watchers.release()

        return StreamingResponse(
            pictures(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}", headers=HEADERS
        )

    def health(request: Request) -> Response:
        silent = state.silent_s()
        healthy = silent < SILENT_S
        return JSONResponse({"healthy": healthy, "silent_s": round(silent, 2)}, 200 if healthy else 503, HEADERS)

    def metrics(request: Request) -> Response:
        return Response(state.metrics(), media_type=CONTENT_TYPE_LATEST, headers=HEADERS)

    routes = [Route(path, page, methods=["GET"]) for path in PAGES]
    routes += [
        Route("/api/state", summary, methods=["GET"]),
        Route("/api/triangles", mesh, methods=["GET"]),
        Route("/api/vertices/{source:int}", vertices, methods=["GET"]),
        Route("/live/{source:int}.mjpg", live, methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


def jpeg(scene: Scene, style: str) -> bytes:
    """The scene, drawn, no wider than `LIVE_WIDTH`."""
    (known,) = (name for name in STYLES if name == style)
    picture = draw_scene(scene, style=known)
    height, width = picture.shape[:2]
    if width > LIVE_WIDTH:
        size = (LIVE_WIDTH, max(1, round(height * LIVE_WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def allowed_hosts(host: str) -> list[str]:
    """Names that requests may come for: on a loopback address that machine's own, anywhere else all."""
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        return ["localhost", "127.0.0.1", "[::1]", _bracketed(host)]
    return ["*"]


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
