"""A trained control over a gallery of frozen tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.controls.heads import build_control, head_of
from benchmarks.quality.progress import Progress
from onnx_export.training.drawn.tokenizer import build_tokenizer
from onnx_export.training.texts import encode_texts
from qdrant_cir.types import Float32

_PICTURES, _QUERIES = 256, 8
"""How many at a time."""


def load_control(folder: Path, kind: str) -> nn.ModuleDict:
    """Load a control as ``python -m benchmarks.controls`` left it, ready to be asked."""
    modules = build_control(kind, seed=0)
    trained = torch.load(folder / f"{kind}.ckpt", map_location="cpu", weights_only=True)["modules"]
    own = modules.state_dict().keys()
    modules.load_state_dict({name: value for name, value in trained.items() if name in own})
    return modules.eval()


@torch.inference_mode()
def score_gallery(
    modules: nn.ModuleDict, kind: str, tokens: Float32, reference_tokens: Float32, texts: Sequence[str]
) -> Float32:
    """Score every query against every picture.

    Args:
        modules: a control.
        kind: names it in progress lines.
        tokens: float32 [P, N, C] of the gallery.
        reference_tokens: float32 [Q, N, C].
        texts: Q modification texts.

    Returns:
        float32 [Q, P], higher is better.
    """
    head, tokenizer = head_of(modules), build_tokenizer()
    parts, progress = [], Progress(f"{kind}: pictures", len(tokens))
    for start in range(0, len(tokens), _PICTURES):
        parts.append(head.pictures(torch.from_numpy(np.array(tokens[start : start + _PICTURES]))))
        progress.reaches(min(start + _PICTURES, len(tokens)))
    found, progress = [], Progress(f"{kind}: queries", len(texts))
    for start in range(0, len(texts), _QUERIES):
        batch = slice(start, start + _QUERIES)
        ids, mask = encode_texts(tokenizer, list(texts[batch]), device=torch.device("cpu"))
        states = modules["text_encoder"](ids, mask, torch.from_numpy(np.array(reference_tokens[batch])))
        queries: Tensor = head.queries(states, mask)
        found.append(torch.cat([head.scores(queries, part) for part in parts], dim=1).numpy())
        progress.reaches(min(start + _QUERIES, len(texts)))
    return np.concatenate(found)
