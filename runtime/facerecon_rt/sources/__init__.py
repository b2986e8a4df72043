"""Inputs: photographs, videos, cameras, streams and lists of them, as frames."""
