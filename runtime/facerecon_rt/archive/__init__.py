"""Archives: millions of photographs and videos to Parquet, with Ray Data."""
