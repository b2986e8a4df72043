"""Rendered people: a morphable face with skin, hair and eyes, drawn by a rasteriser."""
