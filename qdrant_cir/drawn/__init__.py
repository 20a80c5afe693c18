"""The drawn product catalogue: scenes, pictures, edits and texts with exact truth, made from a seed."""
