"""Sources of frames: photographs, videos, cameras, streams and lists of sources."""
