"""Camera -> blendshapes and head rotation over UDP, for an avatar: VMC protocol, which is OSC (https://protocol.vmc.info).

    pip install '.[cpu,osc]'
    python runtime/examples/blendshapes_to_osc.py --input cam0 --to 127.0.0.1:39539

VSeeFace, VMagicMirror, Warudo, EVMC4U (Unity), VMC4UE (Unreal) and others receive it, on port 39539 or 39540. They want
Apple's 52 names, some with a capital: --capitals. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np
from facerecon_rt import FaceReconError, Pipeline, Reconstructor, open_source
from facerecon_rt.commands.arguments import Parser
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.pose import VIEWER_FROM_FRAME, split_camera
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_rt.types import Face
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import UDPClient

Message = tuple[str, list[str | float]]
"""Address and values."""
TOGETHER = 24
"""Messages per packet: 1300 bytes at most, which Ethernet takes whole."""


def head_rotation(face: Face) -> list[float]:
    """Quaternion x, y, z, w in Unity's axes, left-handed: x the avatar's right, y up, z where it looks."""
    turn = cv2.Rodrigues(VIEWER_FROM_FRAME @ split_camera(face.frame_from_head)[1])[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = turn * (np.sin(angle / 2) / max(angle, 1e-9))
    # x is mirrored, and with it the sense of the turns about y and z.
    return [float(x), float(-y), float(-z), float(np.cos(angle / 2))]


def send(client: UDPClient, messages: Sequence[Message]) -> None:
    """The messages of one frame -> UDP packets."""
    for first in range(0, len(messages), TOGETHER):
        bundle = OscBundleBuilder(IMMEDIATELY)
        for address, values in messages[first : first + TOGETHER]:
            message = OscMessageBuilder(address)
            for value in values:
                message.add_arg(value)
            bundle.add_content(message.build())
        client.send(bundle.build())


def messages_of(face: Face | None, names: Sequence[str], capitals: bool) -> list[Message]:
    """A face -> what an avatar is told; None: that nobody is seen."""
    if face is None:
        return [("/VMC/Ext/OK", [0])]
    messages: list[Message] = [("/VMC/Ext/Bone/Pos", ["Head", 0.0, 0.0, 0.0, *head_rotation(face)])]
    for name, weight in arkit_blendshapes(face.expression, names).items():
        messages.append(("/VMC/Ext/Blend/Val", [name[0].upper() + name[1:] if capitals else name, weight]))
    return [*messages, ("/VMC/Ext/Blend/Apply", []), ("/VMC/Ext/OK", [1])]


def main() -> int:
    """Returns the exit code: that of the error, 0 at a video's end and on Ctrl-C."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/face.onnx", metavar="FILE", help="[%(default)s]")
    parser.add_argument("--input", default="cam0", metavar="X", help="a camera, stream or video [%(default)s]")
    parser.add_argument("--to", default="127.0.0.1:39539", metavar="HOST:PORT", help="[%(default)s]")
    parser.add_argument("--capitals", action="store_true", help="EyeBlinkLeft for eyeBlinkLeft")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--to {options.to}: give host and port, as in 127.0.0.1:39539")
    try:
        with (
            UDPClient(host, int(port)) as client,
            Reconstructor(options.model) as reconstructor,
            open_source(options.input) as source,
        ):
            started = time.monotonic()
            for scene in Pipeline(reconstructor, max_faces=1, smooth="low").run(source):
                if not source.live:
                    # A video is played at its own pace.
                    time.sleep(max(0.0, started + scene.frame.time_s - time.monotonic()))
                face = largest(scene.faces)
                send(client, messages_of(face, reconstructor.contract.blendshapes, options.capitals))
    except FaceReconError as error:
        print(f"blendshapes_to_osc: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        parser.error(f"--to {options.to}: {error.strerror}")
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
