"""The tool beside the runtime: the model in torch, its training, checkpoints, export and verification."""
