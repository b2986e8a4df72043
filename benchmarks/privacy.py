"""Frames of a crowd whose faces are covered -> how many faces two detectors still find.

    python benchmarks/privacy.py --data DATA          # a minute; writes results/privacy.md

Ten frames of DATA/videos/crowd_1080p.mp4 are covered with each style. The shipped detector and YuNet look for faces
before and after. A detection after covering may be a face that was missed, or a pattern in the cover, in clothes or in
the wall.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from commands import command_of
from facerecon_rt import Pipeline, Reconstructor, open_source
from facerecon_rt.faces.detect import open_detector
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.sinks.hide import COVERS, cover_faces
from facerecon_rt.types import Image

MODEL = Path("models/face.int8-cpu.onnx")
RESULTS = Path(__file__).with_name("results")
EVERY = 10
"""Interval of the frames in which faces are counted."""
FRAMES = 10
SIZE = 1280
COLUMNS = (
    "Sums over the frames of the faces that each detector finds: in the pictures before, and in those whose faces are "
    "covered."
)
"""Definitions of the columns, for the reader of the results."""
"""Longer side in pixels of the picture that the detectors see, so that they find small faces."""


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument(
        "--model", type=Path, default=Path("models/face.int8-cpu.onnx"), help="model file [%(default)s]"
    )
    arguments = parser.parse_args()
    detectors = {
        "YuNet": open_detector(arguments.data / "detector" / "face_detection_yunet_2023mar.onnx", size=SIZE),
        "shipped detector": open_detector(arguments.model.with_name("face_detector.onnx"), size=SIZE),
    }
    counts = {what: dict.fromkeys(detectors, 0) for what in ("before", *COVERS)}
    with (
        Reconstructor(arguments.model, provider="cpu", hints=True) as reconstructor,
        open_source(str(arguments.data / "videos" / "crowd_1080p.mp4")) as source,
    ):
        pipeline = Pipeline(reconstructor, detect_every=1)
        for frame in islice(source, 1, EVERY * FRAMES + 1):
            scene = pipeline.process(frame)
            if frame.index % EVERY:
                continue
            pictures: dict[str, Image] = {"before": frame.image}
            pictures |= {cover: cover_faces(scene, cover) for cover in COVERS}
            for what, picture in pictures.items():
                for name, detector in detectors.items():
                    counts[what][name] += len(detector.detect(picture))
    lines = [
        "# Covered faces",
        "",
        f"`{command_of(parser, arguments)}`, {FRAMES} frames of crowd_1080p.mp4.",
        "",
        f"Model {named_by_hash(arguments.model)}, shipped detector "
        f"{named_by_hash(arguments.model.with_name('face_detector.onnx'))}.",
        "",
        COLUMNS,
        "",
    ]
    lines += [f"| | {' | '.join(f'faces for {name}' for name in detectors)} |", "|---|---|---|"]
    lines += [f"| {what} | {' | '.join(map(str, found.values()))} |" for what, found in counts.items()]
    (RESULTS / "privacy.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
