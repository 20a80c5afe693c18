"""Training of the bundled model: a pool of drawn pictures, then pre-training, stage one, stage two."""
