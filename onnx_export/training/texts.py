"""Texts as the composer reads them: ids and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from onnx_export.errors import TrainingError


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask of texts, int64 [B, L] on a device, padded to the longest; the first token becomes [ENC]."""
    encodings = tokenizer.encode_batch(list(texts))
    length = max(len(e.ids) for e in encodings)
    ids = torch.zeros(len(encodings), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
        mask[row, : len(encoding.ids)] = 1
    ids[:, 0] = special_id(tokenizer, "[ENC]")
    return ids.to(device), mask.to(device)


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token.

    Raises:
        TrainingError: the tokenizer does not have it.
    """
    number = tokenizer.token_to_id(token)
    if number is None:
        raise TrainingError(f"The tokenizer has no {token} token, which training needs.")
    return int(number)
