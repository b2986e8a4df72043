"""The records of `--output unix:///tmp/faces.sock` -> standard output: time, faces and where they look.

facerecon-rt --input cam0 --output unix:///tmp/faces.sock
python socket_reader.py /tmp/faces.sock
"""

import json
import socket
import struct
import sys
from typing import BinaryIO


def read(stream: BinaryIO, count: int) -> bytes:
    """Read exactly `count` bytes; an empty result is the end."""
    data = stream.read(count)
    return data if len(data) == count else b""


with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    with connection.makefile("rb") as stream:
        while header := read(stream, 4):
            (length,) = struct.unpack("<I", header)
            record = json.loads(read(stream, length) or "{}")
            yaws = [face["pose"]["euler_deg"]["yaw"] for face in record.get("faces", ())]
            print(record.get("frame"), len(yaws), yaws, flush=True)
