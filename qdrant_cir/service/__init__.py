"""The HTTP service of ``qdrant-cir serve``: composed search, re-ranking, pictures and the page."""
