"""A stand-in for Triton's ONNX Runtime backend, which no package on PyPI holds: a Python-based backend of that name.

Triton itself is real: it reads the configuration, batches, warms up, picks versions and speaks the protocol. This
backend only runs each batch with ONNX Runtime's Python package, with the tensors that the configuration declares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """An instance of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Add nothing, because the configuration must be complete."""
        return config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the version that Triton chose."""
        self._config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(self._config["parameters"]["intra_op_thread_count"]["string_value"])
        self._session = onnxruntime.InferenceSession(
            str(folder / self._config["default_model_filename"]), options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the requests that Triton batched in one run."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        names = [output["name"] for output in self._config["output"]]
        outputs = dict(zip(names, self._session.run(names, {"image": np.concatenate(inputs)}), strict=True))
        responses, start = [], 0
        for request, pictures in zip(requests, inputs, strict=True):
            rows = slice(start, start + len(pictures))
            start = rows.stop
            tensors = [
                pb_utils.Tensor(output["name"], self._declared(output, outputs[output["name"]][rows]))
                for output in self._config["output"]
                if output["name"] in request.requested_output_names()
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _declared(self, output: Mapping[str, Any], array: Any) -> Any:
        """Check and reshape an output as ONNX Runtime's backend does: `reshape` is the model's shape, and `dims` is
        that of the clients."""
        batched = self._config["max_batch_size"] > 0
        shape = output["reshape"]["shape"] if "reshape" in output else output["dims"]
        found = array.shape[1:] if batched else array.shape
        assert len(found) == len(shape), (output["name"], found, shape)
        assert all(int(want) in (-1, have) for want, have in zip(shape, found, strict=True)), (output["name"], found)
        return array.reshape(len(array), *map(int, output["dims"])) if "reshape" in output else array
