"""The variance that the stored form of candidate tokens loses, and whether a gallery has drifted from the fitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.errors import BundleError, CirError, InputError
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import read_pixels
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Float32, JsonObject

__all__ = [
    "CODEC_KEY",
    "DRIFTED",
    "EncodedPictures",
    "TokenLoss",
    "encode_pictures",
    "fitting_record",
    "lost_share",
    "measure_loss",
]

CODEC_KEY = "codec"
"""Key of a manifest's provenance for the loss of a fitting."""

DRIFTED = 1.5
"""A gallery has drifted from the fitting when it loses this many times as much."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class EncodedPictures:
    """Pictures as stage two reads them.

    Attributes:
        tokens: float32 [P, N, C].
        skipped: pictures that could not be read, and why, by name.
    """

    tokens: Float32
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The loss of a bundle's compressed form.

    Attributes:
        pictures: that were measured.
        skipped: those that could not be read.
        lost: share of the variance of their tokens that is not stored, 0 to 1.
        lost_when_fitted: the same of pictures that were kept out of the fitting; None where it is not recorded.
    """

    pictures: int
    skipped: Mapping[str, str]
    lost: float
    lost_when_fitted: float | None

    @property
    def has_drifted(self) -> bool:
        """Whether the loss has grown so much since the fitting that it should be fitted again."""
        return self.lost_when_fitted is not None and self.lost > DRIFTED * self.lost_when_fitted


def encode_pictures(
    bundle: Bundle,
    records: Sequence[ImageRecord | RejectedRow],
    *,
    encoded: Callable[[int], object] = lambda count: None,
) -> EncodedPictures:
    """Encode pictures; ``encoded`` is called with the number of further pictures that are done.

    Raises:
        InputError: none could be read.
        ProviderError: the computation failed.
    """
    encoder, spec = ImageEncoder.open(bundle, Compute("cpu")), bundle.manifest.preprocessing
    skipped: dict[str, str] = {}
    pixels: list[Float32] = []
    tokens: list[Float32] = []
    for number, record in enumerate(records, start=1):
        if isinstance(record, RejectedRow):
            skipped[record.place] = record.reason
        else:
            try:
                pixels.append(read_pixels(record.image, spec))
            except CirError as error:
                skipped[record.image_id] = str(error)
        if pixels and (len(pixels) == _BATCH or number == len(records)):
            tokens.append(encoder.encode(np.stack(pixels)).candidate_tokens)
            pixels.clear()
        encoded(1)
    if not tokens:
        named = "".join(f" {name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise InputError(f"None of {len(records)} pictures could be read.{named}")
    return EncodedPictures(np.concatenate(tokens), skipped)


def measure_loss(
    bundle: Bundle,
    records: Sequence[ImageRecord | RejectedRow],
    *,
    encoded: Callable[[int], object] = lambda count: None,
) -> TokenLoss:
    """Measure what a bundle's compressed form loses of pictures, and compare with the fitting.

    Args:
        bundle: one that stores compressed tokens.
        records: pictures, for instance the latest of a gallery.
        encoded: called with the number of further pictures that are done.

    Raises:
        BundleError: the bundle stores all tokens.
        InputError: no picture could be read.
        ProviderError: the computation failed.
    """
    if bundle.manifest.compression is None:
        raise BundleError(f"{bundle.folder} stores all tokens. Fit a compressed bundle first: qdrant-cir fit-codec.")
    found, form = encode_pictures(bundle, records, encoded=encoded), TokenForm(bundle)
    restored = form.restore(form.decode([form.encode(tokens) for tokens in found.tokens]))
    recorded = bundle.manifest.provenance.get(CODEC_KEY)
    fitted = recorded.get("lost") if isinstance(recorded, dict) else None
    return TokenLoss(
        pictures=len(found.tokens),
        skipped=found.skipped,
        lost=lost_share(found.tokens, restored),
        lost_when_fitted=float(fitted) if isinstance(fitted, int | float) else None,
    )


def fitting_record(pictures: int, lost: float) -> JsonObject:
    """Return what a fitting keeps in the manifest's provenance."""
    return {CODEC_KEY: {"pictures": pictures, "lost": lost}}


def lost_share(tokens: Float32, restored: Float32, metric: Float32 | None = None) -> float:
    """Return the share of the variance of tokens [P, N, C] that is lost; a lower bound.

    Restored tokens come in another order, which attention does not see, so each is compared with its nearest. A metric
    [C, C] weighs directions; by default all the same.
    """
    root = np.eye(tokens.shape[2], dtype=np.float32) if metric is None else np.linalg.cholesky(metric)
    mean, lost, total = tokens.mean(axis=(0, 1)), 0.0, 0.0
    for image, back in zip((tokens - mean) @ root, (restored - mean) @ root, strict=True):
        lengths, others = np.square(image).sum(1), np.square(back).sum(1)
        squares = lengths[:, None] + others[None] - 2 * (image @ back.T)
        lost += float(squares.min(axis=1).clip(0).sum())
        total += float(lengths.sum())
    return lost / total
