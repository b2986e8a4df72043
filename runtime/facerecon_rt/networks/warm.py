"""A session that answers at once while the engine of a faster one is built, and then switches to it if they agree."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelContract
from ..errors import FaceReconError
from ..providers.choice import failures, import_onnxruntime, short_reason
from ..providers.nvidia import GpuOptions
from ..unpicklable import Unpicklable
from .golden import TOLERANCES
from .session import FaceSession, RawFaces

log = logging.getLogger("facerecon_rt")


class WarmSession(Unpicklable):
    """A session that answers as a FaceSession does. `provider`, `contract` and `sha256` are those of the current file.

    A context manager that owns both sessions and the process that builds the engine.
    """

    def __init__(
        self, first: FaceSession, building: subprocess.Popen[bytes], open_better: Callable[[], FaceSession]
    ) -> None:
        """Answer with `first` until the build ends.

        `building`: process that ends with 0 once `open_better` can be called and returns quickly.
        """
        self._now = first
        self._building: subprocess.Popen[bytes] | None = building
        self._open_better = open_better

    @property
    def path(self) -> Path:
        """Path of the file that currently serves requests."""
        return self._now.path

    @property
    def contract(self) -> ModelContract:
        """Contract of the file that currently serves requests."""
        return self._now.contract

    @property
    def provider(self) -> str:
        """The provider that currently serves requests."""
        return self._now.provider

    @property
    def sha256(self) -> str:
        """SHA-256 of the file that currently serves requests."""
        return self._now.sha256

    @property
    def choice(self) -> str:
        """The current provider with the reason why it was chosen."""
        return self._now.choice + (" (until the engine of tensorrt is built)" if self._building else "")

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str] | None = None) -> RawFaces:
        """Run crops as a FaceSession does. The run after the build takes longer, because it opens the engine and
        compares."""
        if self._building is not None and self._building.poll() is not None and len(images):
            code, self._building = self._building.returncode, None
            if code == 0:
                self._take_over(images)
            else:
                log.warning("staying on %s: the build of the engine failed with exit code %d", self.provider, code)
        return self._now.run(images, outputs)

    def _take_over(self, images: NDArray[np.uint8]) -> None:
        try:
            better = self._open_better()
        except FaceReconError as error:
            log.warning("staying on %s: %s", self.provider, error)
            return
        not_running: tuple[type[Exception], ...] = (FaceReconError, *failures(import_onnxruntime()))
        try:
            pixels, millimetres = differences(self._now.run(images), better.run(images))
        except not_running as error:
            better.close()
            log.warning("staying on %s: %s does not run (%s)", self.provider, better.provider, short_reason(error))
            return
        allowed = max(TOLERANCES[session.contract.precision] for session in (self._now, better))
        if not (pixels <= allowed and millimetres <= allowed):
            better.close()
            log.warning(
                "staying on %s: %s differs by %.2f pixels and %.2f mm, more than the allowed %g",
                self.provider, better.provider, pixels, millimetres, allowed,
            )  # fmt: skip
            return
        before, self._now = self._now, better
        before.close()
        log.info("%s takes over from %s: they differ by %.3f pixels", better.provider, before.provider, pixels)

    def close(self) -> None:
        """Close the sessions, and end a build in progress. A second call does nothing."""
        if self._building is not None:
            self._building.terminate()
            try:
                self._building.wait(2)
            except subprocess.TimeoutExpired:
                self._building.kill()  # a running build ignores SIGTERM
                self._building.wait()
            self._building = None
        self._now.close()

    def __enter__(self) -> WarmSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def differences(one: RawFaces, other: RawFaces) -> tuple[float, float]:
    """Return the mean distance of the landmarks in crop pixels, and of the vertices in mm."""
    pixels = np.linalg.norm(one.landmarks[..., :2] - other.landmarks[..., :2], axis=-1).mean()
    return float(pixels), float(np.linalg.norm(one.vertices - other.vertices, axis=-1).mean())


def start_building(file: Path, gpu: GpuOptions) -> subprocess.Popen[bytes]:
    """Start `facerecon-rt build` in its own process, so that its memory use or a crash does not affect this one."""
    command = [sys.executable, "-m", "facerecon_rt.cli", "build", "--model", str(file), *build_arguments(gpu)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def build_arguments(gpu: GpuOptions) -> list[str]:
    """Return GPU options as arguments of `facerecon-rt build`."""
    arguments = []
    if gpu.engines is not None:
        arguments += ["--engines", str(gpu.engines)]
    if gpu.memory_mb is not None:
        arguments += ["--gpu-memory", str(gpu.memory_mb)]
    return [*arguments, *(["--cuda-graph"] if gpu.cuda_graph else [])]
