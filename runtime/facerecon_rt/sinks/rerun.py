"""Scenes -> a Rerun recording (.rrd) with frames, meshes, poses, blendshapes and timings on one timeline, for
developers.

`rerun FILE.rrd` shows it (https://rerun.io). Needs the extra `rerun`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..addresses import DistinctNames, public_name
from ..errors import UsageError
from ..interrupts import importing
from ..paths import is_utf8
from ..pose import euler_from_camera, gaze_angles
from ..template import FaceTemplate, load_template
from ..types import Face, Scene, face_label
from .draw import Painter
from .outputs import Partial, check_writable, remove_abandoned
from .pictures import jpeg

JPEG_QUALITY = 85


class RerunSink:
    """A sink that writes one recording. Every source is its own entity, with its faces below it by track."""

    def __init__(
        self,
        path: Path,
        blendshapes: Sequence[str],
        template: FaceTemplate | None = None,
        paint: Painter | None = None,
    ) -> None:
        """Open the recording. `paint`: draws the recorded picture; without it the recording has no pictures. Raises
        UsageError when the file cannot be written or rerun-sdk is not installed."""
        try:
            with importing():
                import rerun
        except ModuleNotFoundError as error:
            raise UsageError(f"{path.suffix} needs {error.name}: pip install 'facerecon-rt[rerun]'") from error
        check_writable(path)
        remove_abandoned(path)
        if not is_utf8(str(path.absolute())):
            raise UsageError(f"cannot write {path}: Rerun accepts only names in UTF-8; choose another name")
        self._rerun: Any = rerun
        self._path = path
        self._blendshapes = tuple(blendshapes)
        self._template = template or load_template()
        self._paint = paint
        self._entities = DistinctNames(entity)
        self._recording: Any = rerun.RecordingStream("facerecon-rt")
        self._partial: Partial | None = None
        """The growing file; None until something is written."""

    def __enter__(self) -> RerunSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Add one scene to the recording. Raises UsageError when the file cannot be written."""
        rerun, to = self._rerun, self._recording
        if self._partial is None:
            self._partial = Partial(self._path)
            to.save(self._partial.path)
        root = self._entities(scene.frame.source)
        to.set_time("frame", sequence=scene.frame.index)
        to.set_time("time", duration=scene.frame.time_s)
        if self._paint is not None:
            contents = jpeg(self._paint(scene), JPEG_QUALITY)
            to.log(f"{root}/picture", rerun.EncodedImage(contents=contents, media_type="image/jpeg"))
        boxes = np.reshape([face.box for face in scene.faces], (-1, 4))
        labels = [face_label(index, face) for index, face in enumerate(scene.faces)]
        to.log(f"{root}/picture/boxes", rerun.Boxes2D(array=boxes, array_format=rerun.Box2DFormat.XYXY, labels=labels))
        points = np.reshape([face.landmarks[:, :2] for face in scene.faces], (-1, 2))
        to.log(f"{root}/picture/landmarks", rerun.Points2D(points, radii=1.5))
        for name, face in zip(labels, scene.faces, strict=True):
            self._write_face(f"{root}/faces/{name}", face)
        for number in scene.left:
            to.log(f"{root}/faces/track{number}", rerun.Clear(recursive=True))
        for stage, milliseconds in scene.stages_ms.items():
            to.log(f"{root}/stages_ms/{stage}", rerun.Scalars(milliseconds))

    def close(self) -> None:
        """Finish the file and give it its name. Raises UsageError when that fails. A second call does nothing."""
        if self._partial is None:
            return
        partial, self._partial = self._partial, None
        self._recording.flush()
        self._recording.disconnect()
        partial.finish()

    def _write_face(self, name: str, face: Face) -> None:
        rerun, to = self._rerun, self._recording
        mesh = rerun.Mesh3D(vertex_positions=face.vertices, triangle_indices=self._template.triangles)
        to.log(f"{name}/mesh", mesh)
        for angle, degrees in zip(("pitch", "yaw", "roll"), euler_from_camera(face.frame_from_head), strict=True):
            to.log(f"{name}/euler_deg/{angle}", rerun.Scalars(degrees))
        if face.gaze is not None:
            for angle, degrees in zip(
                ("yaw", "pitch"), gaze_angles(face.gaze.mean(0), face.frame_from_head), strict=True
            ):
                to.log(f"{name}/gaze_deg/{angle}", rerun.Scalars(degrees))
        to.log(f"{name}/confidence", rerun.Scalars(face.confidence))
        for blendshape, weight in zip(self._blendshapes, face.expression.tolist(), strict=True):
            to.log(f"{name}/blendshapes/{blendshape}", rerun.Scalars(weight))


def entity(source: str) -> str:
    """Return a source's name as a Rerun path of one step, without characters that need an escape."""
    return re.sub(r"[^\w.-]+", "_", public_name(source)).strip("_.") or "source"
