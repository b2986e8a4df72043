"""Execution providers of ONNX Runtime: the choice of a provider for a file, and the settings of NVIDIA GPUs."""
