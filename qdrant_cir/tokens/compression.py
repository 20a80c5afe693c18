"""Candidate tokens in fewer rows and dimensions, so that an image takes a few KB instead of hundreds.

Rows: similar tokens are merged into their mean, stored with the number of tokens it stands for. Attention adds the
logarithm of that number to the scores, so a mean of equal tokens has exactly the effect of those tokens.
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
from qdrant_cir.types import Float32, Int64

__all__ = ["MergedTokens", "TokenProjection", "expand_rows", "merge_rows", "projection_of", "write_projection"]


@dataclass(frozen=True, slots=True)
class MergedTokens:
    """Tokens of K images in fewer rows.

    Attributes:
        tokens: float32 [K, M, C]; row 0 is the class token, never merged.
        weights: float32 [K, M], whole numbers from 1: how many tokens a row is the mean of. They sum to N.
        members: int64 [K, N], the row that each token is part of; None for rows from a store, which forgets.
    """

    tokens: Float32
    weights: Float32
    members: Int64 | None = None


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
        """Project [..., C] to float32 [..., R]."""
        reduced: Float32 = np.matmul(tokens - self.mean, self.down, dtype=np.float32)
        return reduced

    def restore(self, reduced: Float32) -> Float32:
        """Return float32 [..., C] from [..., R], as close to the original as R dimensions allow."""
        restored: Float32 = np.matmul(reduced, self.up, dtype=np.float32) + self.mean
        return restored


def merge_rows(tokens: Float32, rows: int) -> MergedTokens:
    """Merge each image's most similar tokens, by cosine, until ``rows`` are left.

    Works in rounds. Each row is paired with its most similar row, and the most similar pairs are merged into the
    mean of all their tokens. A round removes at most a third of the rows, so that new means are compared before
    they are merged again. The other images of the batch make no difference.

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
    members = np.zeros((images, count), dtype=np.int64)
    for place, image in enumerate(tokens):
        merged[place, 0] = image[0]
        kept, counts = image[1:].astype(np.float32), np.ones(count - 1, dtype=np.float32)
        rows_of = np.arange(count - 1)
        while len(kept) > rows - 1:
            merges = min(len(kept) - (rows - 1), max(1, len(kept) // 3))
            kept, counts, moved = _merge_round(kept, counts, merges)
            rows_of = moved[rows_of]
        merged[place, 1:], weights[place, 1:], members[place, 1:] = kept, counts, rows_of + 1
    return MergedTokens(merged, weights, members)


def _merge_round(tokens: Float32, weights: Float32, merges: int) -> tuple[Float32, Float32, Int64]:
    """Merge at most ``merges`` rows of [N, C], and at least one, into the rows most similar to them.

    Returns:
        The rows that are left, their weights, and for every row given the place of the one that it is part of.
    """
    lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
    directions = tokens / np.maximum(lengths, np.float32(1e-12))
    similarity = directions @ directions.T  # [N, N]
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(axis=1)  # [N], each row's most similar other row
    likeness = similarity[np.arange(len(tokens)), nearest]  # [N]
    takers = np.arange(len(tokens))  # [N], the row that each row is merged into; itself until it is merged
    receives = np.zeros(len(tokens), dtype=bool)
    # in one round, a row either receives others or is merged into another, never both
    for giver in np.argsort(-likeness, kind="stable").tolist():
        taker = int(nearest[giver])
        if receives[giver] or takers[taker] != taker:
            continue
        takers[giver], receives[taker] = taker, True
        merges -= 1
        if merges == 0:
            break
    totals, sums = np.zeros_like(weights), np.zeros_like(tokens)  # [N], [N, C]; zero for rows that were merged away
    np.add.at(totals, takers, weights)
    np.add.at(sums, takers, tokens * weights[:, None])
    stays = totals > 0
    places = np.cumsum(stays) - 1  # [N], of the rows that stay
    return sums[stays] / totals[stays, None], totals[stays], places[takers]  # [N - merges, C], [N - merges], [N]


def write_projection(path: Path, projection: TokenProjection) -> None:
    """Write a projection as the npz that a bundle holds; equal projections make equal bytes."""
    np.savez(path, mean=projection.mean, down=projection.down, up=projection.up)


def projection_of(bundle: Bundle) -> TokenProjection | None:
    """Read the projection of a bundle; None if the bundle does not compress.

    Raises:
        BundleError: the file is not a projection, or has other sizes than the manifest.
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
        raise BundleError(f"{path} is not a projection: {error}. Fit the codec again.") from error
    for name, shape in shapes.items():
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise BundleError(
                f"{path}: {name} is {found[name].dtype} {list(found[name].shape)}; expected float32 {list(shape)}. "
                "Fit the codec again."
            )
    return TokenProjection(**found)


def expand_rows(merged: MergedTokens) -> Float32:
    """Repeat every row once for each token that it stands for: float32 [K, N, C].

    For readers of all N tokens without weights, such as the composer with a reference from the gallery. Attention
    ignores the order of rows, so the result is the same as with weighted rows.
    """
    repeats = merged.weights.astype(np.int64)
    expanded: Float32 = np.stack(
        [np.repeat(rows, times, axis=0) for rows, times in zip(merged.tokens, repeats, strict=True)]
    )
    return expanded
