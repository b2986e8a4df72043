"""A model repository -> KServe's own Python server. ONNX Runtime runs each model's newest version.

    python kserve_models.py REPOSITORY HTTP_PORT GRPC_PORT

The server and its protocol are KServe's. As in its custom models, this program brings the code that runs the file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):  # type: ignore[misc]
    """A model that ONNX Runtime runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name)
        newest = max(folder.glob("*/model.onnx"), key=lambda path: int(path.parent.name))
        self._session = onnxruntime.InferenceSession(str(newest), providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Run one request by itself, since KServe leaves batching to others."""
        names = [output.name for output in payload.request_outputs]
        arrays = self._session.run(names, {tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        outputs = []
        for name, array in zip(names, arrays, strict=True):
            output = InferOutput(name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(
            payload.id,
            self.name,
            outputs,
            from_grpc=payload.from_grpc,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    repository, http, grpc = sys.argv[1:]
    models = [OnnxModel(path.parents[1]) for path in sorted(Path(repository).glob("*/1/model.onnx"))]
    ModelServer(http_port=int(http), grpc_port=int(grpc), workers=1).start(models)
