"""Every error that the export tool raises on purpose.

::

    ExportError
    ├── CheckpointError      a checkpoint file is damaged, unsafe, or its keys and shapes are not what is expected
    ├── LabelFileError       a Top-K file of the original code is not what is expected, or cannot be filled
    ├── VerificationError    an exported graph does not give what the torch model gives
    └── TrainingError        a training run cannot start or go on
"""

__all__ = ["CheckpointError", "ExportError", "LabelFileError", "TrainingError", "VerificationError"]


class ExportError(Exception):
    """The root of the tool's errors."""


class CheckpointError(ExportError):
    """A checkpoint file is damaged, unsafe, or its keys and shapes are not what is expected."""


class LabelFileError(ExportError):
    """A Top-K file of the original code is not what is expected, or cannot be filled."""


class VerificationError(ExportError):
    """An exported graph does not give what the torch model gives."""


class TrainingError(ExportError):
    """A training run cannot start or go on."""
