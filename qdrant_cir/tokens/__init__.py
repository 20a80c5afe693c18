"""Candidate tokens between encoder, Qdrant and re-ranker."""
