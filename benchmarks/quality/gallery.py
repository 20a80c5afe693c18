"""The gallery through the image encoder of a bundle: computed once, kept, read from the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.progress import Progress
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Composition, EncodedImages, Float32, Int64, StoredTokens

_BATCH = 32


@dataclass(frozen=True, slots=True)
class EncodedGallery:
    """Every picture as it is searched, and as it is re-ranked.

    Attributes:
        vectors: float32 [P, D].
        tokens: float32 [P, N, C], what the re-ranker reads of a candidate before it is stored; memory-mapped.
        stored: the same in the bundle's codec; memory-mapped.
        reference_tokens: float32 [Q, N, C], of every query's reference as the composer reads them.
    """

    vectors: Float32
    tokens: Float32
    stored: StoredTokens
    reference_tokens: Float32

    def scorer(self, reranker: Reranker) -> Callable[[Composition, Int64], Float32]:
        """Return what scores a query's candidates, given by their rows, as they are stored."""
        return lambda query, rows: reranker.score(query, self.candidates(rows))

    def candidates(self, rows: NDArray[np.int64]) -> StoredTokens:
        """Read some pictures' tokens as they are stored, in the order given."""
        return StoredTokens(values=self.stored.values[rows], scales=self.stored.scales[rows])


def encode_gallery(
    bundle: Bundle, encoder: ImageEncoder, pictures: Sequence[Path], references: Sequence[int], folder: Path
) -> EncodedGallery:
    """Encode what is missing of a gallery.

    Args:
        bundle: of the encoder.
        encoder: that both stages read pictures through.
        pictures: of the gallery.
        references: row of every query's reference.
        folder: where the arrays are kept; of this bundle and gallery alone.
    """
    sizes, count = bundle.manifest.sizes, len(pictures)
    shape = (count, sizes.token_rows, sizes.token_dims)
    dtype = np.dtype(sizes.token_codec)
    vectors = open_array(folder / "vectors.npy", (count, sizes.vector_size), np.dtype(np.float32))
    tokens = open_array(folder / "tokens.npy", shape, np.dtype(np.float32))
    values = open_array(folder / "values.npy", shape, dtype)
    scales = open_array(folder / "scales.npy", shape[:2], np.dtype(np.float32))
    progress = Progress("encoding pictures", count)
    for start in range(0, count, _BATCH):
        rows = slice(start, min(start + _BATCH, count))
        if vectors[rows].any(axis=1).all():  # a unit vector is never zero; a new file is
            continue
        encoded = encode_pictures(bundle, encoder, pictures[rows])
        stored = quantize(encoded.candidate_tokens, sizes.token_codec)
        tokens[rows], values[rows], scales[rows] = encoded.candidate_tokens, stored.values, stored.scales
        vectors[rows] = encoded.vectors
        progress.reaches(rows.stop)
    gallery = StoredTokens(values=values, scales=scales)
    found = _references(bundle, encoder, pictures, references, gallery)
    return EncodedGallery(np.asarray(vectors), tokens, gallery, found)


def encode_pictures(bundle: Bundle, encoder: ImageEncoder, pictures: Sequence[Path]) -> EncodedImages:
    """Encode picture files in one run."""
    spec = bundle.manifest.preprocessing
    return encoder.encode(np.stack([read_pixels(path, spec) for path in pictures]))


def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.memmap[tuple[int, ...], np.dtype]:
    """Open an array on disk to continue it; make a new one, of zeros, where there is none of this shape."""
    if path.exists():
        array: np.memmap[tuple[int, ...], np.dtype] = np.load(path, mmap_mode="r+")
        if array.shape == shape and array.dtype == dtype:
            return array
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _references(
    bundle: Bundle,
    encoder: ImageEncoder,
    pictures: Sequence[Path],
    references: Sequence[int],
    stored: StoredTokens,
) -> Float32:
    """Return the references' tokens as stored, or encoded again where the encoders differ, as the retriever does."""
    if not bundle.has_candidate_encoder:
        rows = list(references)
        tokens: Float32 = stored.values[rows].astype(np.float32) * stored.scales[rows][..., None]
        return tokens
    batches = [references[start : start + _BATCH] for start in range(0, len(references), _BATCH)]
    return np.concatenate(
        [encode_pictures(bundle, encoder, [pictures[row] for row in batch]).tokens for batch in batches]
    )
