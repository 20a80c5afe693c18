"""Candidate tokens as few rows and few dimensions, so that an image costs a few KB instead of hundreds.

Rows: tokens that look alike are merged into their mean, which keeps how many it stands for. Attention adds the
logarithm of that number to the scores, so a mean of equal tokens is attended to exactly as those tokens were.
Dimensions: a linear projection, fitted on a gallery (``onnx_export/bundle/fitted_codec.py``) and folded into the
re-ranker's weights.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qdrant_cir.errors import BundleError, TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.types import Float32

__all__ = ["MergedTokens", "TokenProjection", "expand_rows", "merge_rows", "projection_of", "write_projection"]


@dataclass(frozen=True, slots=True)
class MergedTokens:
    """Tokens of K images in fewer rows.

    Attributes:
        tokens: float32 [K, M, C]; row 0 is the class token, never merged.
        weights: float32 [K, M], whole numbers from 1: how many tokens a row is the mean of. They sum to N.
    """

    tokens: Float32
    weights: Float32


@dataclass(frozen=True, slots=True)
class TokenProjection:
    """Tokens to fewer dimensions and back: ``z = (e - mean) @ down`` and ``e ~ mean + z @ up``.

    Attributes:
        mean: float32 [C].
        down: float32 [C, R].
        up: float32 [R, C]; ``up @ down`` is the identity.
    """

    mean: Float32
    down: Float32
    up: Float32

    def reduce(self, tokens: Float32) -> Float32:
        """Give float32 [..., R] of [..., C]."""
        reduced: Float32 = np.matmul(tokens - self.mean, self.down, dtype=np.float32)
        return reduced

    def restore(self, reduced: Float32) -> Float32:
        """Give float32 [..., C] of [..., R], as near as R dimensions allow."""
        restored: Float32 = np.matmul(reduced, self.up, dtype=np.float32) + self.mean
        return restored


def merge_rows(tokens: Float32, rows: int) -> MergedTokens:
    """Merge each image's most similar tokens, by cosine, until ``rows`` are left.

    In rounds: every row names the row most similar to it, and the most similar of these pairs become one row, the
    mean of all tokens that it stands for. A round removes a third of the rows at most, so that means are compared
    anew before they are merged further. An image merges the same in any batch.

    Args:
        tokens: float32 [K, N, C], row 0 the class token.
        rows: M, rows to keep, the class token included.

    Raises:
        TokensError: ``rows`` is below 3 or above N.
    """
    images, count, dims = tokens.shape
    if not 3 <= rows <= count:
        raise TokensError(f"Cannot merge {count} tokens into {rows} rows; give 3 to {count}.")
    merged = np.empty((images, rows, dims), dtype=np.float32)
    weights = np.ones((images, rows), dtype=np.float32)
    for place, image in enumerate(tokens):
        merged[place, 0] = image[0]
        kept, counts = image[1:].astype(np.float32), np.ones(count - 1, dtype=np.float32)
        while len(kept) > rows - 1:
            kept, counts = _merge_round(kept, counts, min(len(kept) - (rows - 1), max(1, len(kept) // 3)))
        merged[place, 1:], weights[place, 1:] = kept, counts
    return MergedTokens(merged, weights)


def _merge_round(tokens: Float32, weights: Float32, merges: int) -> tuple[Float32, Float32]:
    """Merge at most ``merges`` rows of [N, C], and at least one, into the rows most similar to them."""
    lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
    directions = tokens / np.maximum(lengths, np.float32(1e-12))
    similarity = directions @ directions.T  # [N, N]
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(axis=1)  # [N], each row's most similar other row
    likeness = similarity[np.arange(len(tokens)), nearest]  # [N]
    takers = np.arange(len(tokens))  # [N], the row that each row becomes part of: itself until it is given away
    receives = np.zeros(len(tokens), dtype=bool)
    # a row that was given away receives nothing in this round, and one that received is not given away
    for giver in np.argsort(-likeness, kind="stable").tolist():
        taker = int(nearest[giver])
        if receives[giver] or takers[taker] != taker:
            continue
        takers[giver], receives[taker] = taker, True
        merges -= 1
        if merges == 0:
            break
    totals, sums = np.zeros_like(weights), np.zeros_like(tokens)  # [N], [N, C]; zero for rows that were given away
    np.add.at(totals, takers, weights)
    np.add.at(sums, takers, tokens * weights[:, None])
    stays = totals > 0
    return sums[stays] / totals[stays, None], totals[stays]  # [N - merges, C], [N - merges]


def write_projection(path: Path, projection: TokenProjection) -> None:
    """Write a projection as the npz that a bundle holds; equal ones give equal bytes."""
    np.savez(path, mean=projection.mean, down=projection.down, up=projection.up)


def projection_of(bundle: Bundle) -> TokenProjection | None:
    """Read the projection of a bundle, None for one that does not compress.

    Raises:
        BundleError: the file is none, or of other sizes than the manifest says.
    """
    packed, sizes = bundle.manifest.compression, bundle.manifest.sizes
    if packed is None:
        return None
    path = bundle.folder / packed.file
    shapes = {
        "mean": (sizes.token_dims,),
        "down": (sizes.token_dims, packed.dims),
        "up": (packed.dims, sizes.token_dims),
    }
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in shapes}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is no projection: {error}. Fit the codec again.") from error
    for name, shape in shapes.items():
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise BundleError(
                f"{path}: {name} is {found[name].dtype} {list(found[name].shape)}; expected float32 {list(shape)}. "
                "Fit the codec again."
            )
    return TokenProjection(**found)


def expand_rows(merged: MergedTokens) -> Float32:
    """Repeat every row as often as it stands for: float32 [K, N, C].

    For what reads all N tokens without weights, as the composer does of a reference in the gallery. Attention does not
    look at the order of rows, so this reads exactly as weighted rows do.
    """
    repeats = merged.weights.astype(np.int64)
    expanded: Float32 = np.stack(
        [np.repeat(rows, times, axis=0) for rows, times in zip(merged.tokens, repeats, strict=True)]
    )
    return expanded
