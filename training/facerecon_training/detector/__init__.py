"""The face detector: its network, scenes, training and measurements."""
