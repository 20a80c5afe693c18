"""The export tool: the model in torch, its training, checkpoints, export and verification."""
