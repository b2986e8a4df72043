"""`--serve`: a page that shows what is seen now, and what machines ask: health and metrics. The extra `web`."""
