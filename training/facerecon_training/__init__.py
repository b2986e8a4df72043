"""Face model, rendered faces and photographs -> FaceModel weights."""
