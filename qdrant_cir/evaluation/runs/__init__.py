"""Galleries, answers and scores of an evaluation."""
