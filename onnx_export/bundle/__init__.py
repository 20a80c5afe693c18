"""Work on finished bundles: weights, precisions, compressed tokens and records."""
