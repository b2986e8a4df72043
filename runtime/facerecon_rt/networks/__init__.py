"""Opened model files: sessions, ensembles of networks, the mirror image, golden answers and precisions."""
