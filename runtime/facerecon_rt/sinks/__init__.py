"""Outputs: records, drawings, meshes, videos and recordings, each written in its own thread."""
