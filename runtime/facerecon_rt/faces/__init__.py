"""Frames to faces: detection, crops and networks, tracking over time, shapes, doubts and the pipeline."""
