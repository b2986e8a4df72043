"""Execution providers of ONNX Runtime: which one runs a file, and how NVIDIA GPUs are used."""
