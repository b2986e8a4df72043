"""An RTSP camera that repeats pictures as H.264. The system's Python runs it, because that has GStreamer's bindings.

    /usr/bin/python3 rtsp_server.py PORT 'FOLDER/%05d.jpg' [USER PASSWORD]

Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    '( multifilesrc location="{}" loop=true caps="image/jpeg,framerate=25/1" ! jpegdec ! videoconvert '
    "! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def only_for(server: "GstRtspServer.RTSPServer", user: str, password: str) -> "GstRtspServer.RTSPToken":
    """Require Basic authentication."""
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    return token


def main(port: str, pictures: str, *account: str) -> None:
    Gst.init(None)
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_service(port)
    factory.set_launch(PIPELINE.format(pictures))
    factory.set_shared(True)
    if account:
        only_for(server, *account)
        factory.add_role_from_structure(
            Gst.Structure.from_string(
                "user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
            )[0]
        )
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} is taken")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main(*sys.argv[1:])
