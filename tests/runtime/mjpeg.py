"""A network camera that can be stalled, killed, started again and changed: Motion JPEG over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
from facerecon_rt.types import Image

BOUNDARY = "frame"


class MjpegServer:
    """A server that repeats its frames at `http://127.0.0.1:PORT/`. A context manager."""

    def __init__(self, frames: Sequence[Image], fps: float = 50.0) -> None:
        self.show(frames)
        self._fps = fps
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._ended = threading.Event()
        self._running = threading.Event()
        self._running.set()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}/live.mjpg"

    def show(self, frames: Sequence[Image]) -> None:
        """Serve these frames from now on."""
        self._jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]

    def start(self) -> None:
        """Start the server, on the same port as before."""
        outer = self
        ended = self._ended = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self.end_headers()
                number = 0
                try:
                    while not ended.wait(1 / outer._fps):
                        while not outer._running.wait(0.05):
                            if ended.is_set():
                                return
                        jpeg = outer._jpegs[number % len(outer._jpegs)]
                        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        number += 1
                except OSError:
                    return  # the reader has gone

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = False  # joined by server_close
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        """Stop sending frames, cut the connections, and close the port."""
        self._ended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def stall(self) -> None:
        """Keep the connections, but send no frames."""
        self._running.clear()

    def go_on(self) -> None:
        """Continue after `stall`."""
        self._running.set()

    def __enter__(self) -> MjpegServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.go_on()
        self.kill()
