"""The commands of ``python -m onnx_export``."""
