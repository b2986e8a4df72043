"""Face model, rendered faces and photographs -> FaceModel weights."""

from facerecon_rt import start as _start  # noqa: F401  before anything else is loaded, since it takes the signals
