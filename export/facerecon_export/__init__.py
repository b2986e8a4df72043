"""FaceModel weights -> ONNX files, each checked against the PyTorch model."""

from facerecon_rt import start as _start  # noqa: F401  before anything else is loaded, since it takes the signals
