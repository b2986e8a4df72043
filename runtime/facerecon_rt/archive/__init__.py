"""Photographs and videos by the million -> Parquet, with Ray Data."""
