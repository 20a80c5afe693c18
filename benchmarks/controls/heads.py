"""How the controls compare a query with a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models import DRAWN_SMALL, ModelSizes
from onnx_export.models.text_encoder import TextEncoder

VECTOR_SIZE, READERS, TOKEN_SIZE = 1024, 8, 64


class Control(Protocol):
    """Compares queries with pictures; each side is computed once and compared with any of the other."""

    def pictures(self, tokens: Tensor) -> Tensor:
        """Turn frozen tokens float32 [T, N, C] into what is compared."""

    def queries(self, states: Tensor, mask: Tensor) -> Tensor:
        """Turn fusion states float32 [B, L, H] with mask int64 [B, L] into what is compared."""

    def scores(self, queries: Tensor, pictures: Tensor) -> Tensor:
        """Compare each query with each picture: float32 [B, T], higher is better."""


class SingleVector(nn.Module):
    """One unit vector for a query, one for a picture, compared by cosine.

    A picture's tokens are read by several learnt attentions; what these and the class token hold is projected.
    """

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.readers = nn.Parameter(torch.randn(READERS, sizes.image_width) * sizes.image_width**-0.5)
        self.picture = nn.Sequential(
            nn.Linear((READERS + 1) * sizes.image_width, VECTOR_SIZE), nn.GELU(), nn.Linear(VECTOR_SIZE, VECTOR_SIZE)
        )
        self.query = nn.Linear(sizes.text_width, VECTOR_SIZE)

    def pictures(self, tokens: Tensor) -> Tensor:
        """Return unit vectors float32 [T, D]."""
        attention = (tokens @ self.readers.T).softmax(dim=1)
        read = attention.transpose(1, 2) @ tokens
        joined = torch.cat((tokens[:, :1].to(read.dtype), read), dim=1).flatten(1)
        return functional.normalize(self.picture(joined).float(), dim=-1)

    def queries(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return unit vectors float32 [B, D], of the first state."""
        return functional.normalize(self.query(states[:, 0]).float(), dim=-1)

    def scores(self, queries: Tensor, pictures: Tensor) -> Tensor:
        """Return cosines [B, T]."""
        return queries @ pictures.T


class LateInteraction(nn.Module):
    """A unit vector for every word of a query and every token of a picture (ColBERT's MaxSim)."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.picture = nn.Linear(sizes.image_width, TOKEN_SIZE)
        self.query = nn.Linear(sizes.text_width, TOKEN_SIZE)

    def pictures(self, tokens: Tensor) -> Tensor:
        """Return unit vectors float32 [T, N, d]."""
        return functional.normalize(self.picture(tokens).float(), dim=-1)

    def queries(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return unit vectors float32 [B, L, d], zeros for padding, which therefore adds nothing to a score."""
        return functional.normalize(self.query(states).float(), dim=-1) * mask[..., None]

    def scores(self, queries: Tensor, pictures: Tensor) -> Tensor:
        """Return the sum over a query's words of the largest cosine among a picture's tokens: [B, T]."""
        cosines = queries.flatten(0, 1) @ pictures.flatten(0, 1).T
        best = cosines.view(*queries.shape[:2], *pictures.shape[:2]).max(dim=-1).values
        return best.sum(dim=1)


KINDS: Mapping[str, type[SingleVector] | type[LateInteraction]] = {
    "single_vector": SingleVector,
    "late_interaction": LateInteraction,
}


def build_control(kind: str, sizes: ModelSizes = DRAWN_SMALL, *, seed: int) -> nn.ModuleDict:
    """Build ``text_encoder`` and ``head`` of a control with fresh weights; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleDict({"text_encoder": TextEncoder(sizes), "head": KINDS[kind](sizes)})


def head_of(modules: nn.ModuleDict) -> Control:
    """Return the head, which compares."""
    return cast(Control, modules["head"])
