"""Training on the user's own data."""
