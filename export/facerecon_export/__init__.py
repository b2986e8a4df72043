"""FaceModel weights -> ONNX files, each checked against the PyTorch model."""
