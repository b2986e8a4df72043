"""A video file -> a network camera, for whoever has none: Motion JPEG over HTTP, again and again.

python mjpeg_camera.py video.mp4 8972
facerecon-rt --input http://127.0.0.1:8972/cam --serve 127.0.0.1:8080          # in another terminal
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2


def jpegs(video: str) -> Iterator[tuple[bytes, float]]:
    """Yield the frames of a video as JPEGs, again and again, each with the seconds until the next one."""
    while True:
        capture = cv2.VideoCapture(video)
        pause_s = 1 / (capture.get(cv2.CAP_PROP_FPS) or 25)
        read, image = capture.read()
        if not read:
            return
        while read:
            yield cv2.imencode(".jpg", image)[1].tobytes(), pause_s
            read, image = capture.read()


class Camera(BaseHTTPRequestHandler):
    """Answer every request with the video as a stream, until the server stops."""

    video = ""
    timeout = 5
    stopping = threading.Event()

    def do_GET(self) -> None:
        """Send frames until the reader goes or the server stops."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for jpeg, pause_s in jpegs(self.video):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                if self.stopping.wait(pause_s):
                    return
        except OSError:
            return  # the reader has gone


def main(video: str, port: str = "8972") -> None:
    """Serve the video on this machine until Ctrl-C."""
    if not cv2.VideoCapture(video).isOpened():
        sys.exit(f"mjpeg_camera: cannot read {video}; check its name")
    Camera.video = video
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Camera) as server:
        # Python must not end while a thread still decodes, because OpenCV aborts then.
        server.daemon_threads = False
        try:
            print(f"http://127.0.0.1:{server.server_address[1]}/cam", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            Camera.stopping.set()
            sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
