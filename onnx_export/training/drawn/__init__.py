"""Training of the drawn bundle."""
