"""The server of `--serve`: a live page for people, and health and metrics for machines. Needs the extra `web`."""
