"""A gallery in Qdrant, without a model."""
