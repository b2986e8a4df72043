"""3D faces from photographs, photograph sets, videos and cameras.

    from facerecon_rt import Pipeline, Reconstructor, open_sink, open_source

    with Reconstructor("models/face.onnx") as reconstructor, open_source("cam0") as source:
        for scene in Pipeline(reconstructor).run(source):
            for face in scene.faces:
                print(face.track, face.landmarks[30], face.expression)

Shapes, units and frames of reference stand under every field of `Face`, in types.py.
"""

# isort: off
from . import start as _start  # noqa: F401  before anything else is loaded, since it takes the signals
from typing import TYPE_CHECKING
from . import limits as _limits  # noqa: F401  before OpenCV is loaded, since it sets OpenCV's limits
from . import opencv as _opencv  # noqa: F401  before the modules that need OpenCV

# isort: on
from .contract import BLENDSHAPES, ModelContract
from .errors import FaceReconError, ModelRefused, ProviderMissing, SourceError, UsageError
from .faces.detect import Detector, open_detector
from .faces.image_set import reconstruct_set_from_sources
from .faces.metric import Intrinsics
from .faces.pipeline import Pipeline
from .faces.reconstruct import Reconstructor, reconstruct, reconstruct_set
from .faces.shapes import ImageSet
from .networks.ensemble import Ensemble
from .networks.session import FaceSession
from .pose import euler_from_camera
from .providers.nvidia import GpuOptions
from .sinks.files import open_sink
from .sinks.record import record_from_scene
from .sources.files import open_source, read_image
from .template import FaceTemplate, load_template
from .types import Crop, Detection, Face, Frame, Scene

__version__: str

if not TYPE_CHECKING:  # or every name would be taken for a text

    def __getattr__(name: str) -> str:
        """Look up `__version__`, the installed version, when it is asked for."""
        if name == "__version__":
            from .environment import installed_version

            return installed_version("facerecon-rt")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BLENDSHAPES",
    "Crop",
    "Detection",
    "Detector",
    "Ensemble",
    "Face",
    "FaceReconError",
    "FaceSession",
    "FaceTemplate",
    "Frame",
    "GpuOptions",
    "ImageSet",
    "Intrinsics",
    "ModelContract",
    "ModelRefused",
    "Pipeline",
    "ProviderMissing",
    "Reconstructor",
    "Scene",
    "SourceError",
    "UsageError",
    "euler_from_camera",
    "load_template",
    "open_detector",
    "open_sink",
    "open_source",
    "read_image",
    "reconstruct",
    "reconstruct_set",
    "reconstruct_set_from_sources",
    "record_from_scene",
]
