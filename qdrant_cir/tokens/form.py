"""The form in which a bundle stores candidate tokens: all of them, or compressed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdrant_cir.model.bundle import Bundle
from qdrant_cir.tokens.codec import decode_tokens, encode_merged_tokens, encode_tokens, is_in_form
from qdrant_cir.tokens.compression import MergedTokens, expand_rows, merge_rows, projection_of
from qdrant_cir.types import Float32, Int64, StoredTokens

__all__ = ["TokenForm"]


class TokenForm:
    """Conversion between the encoder's tokens and the form that a bundle stores. Safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the projection of a bundle that compresses. Raises BundleError where it is damaged."""
        self._sizes = bundle.manifest.sizes
        self._projection = projection_of(bundle)

    @property
    def version(self) -> int:
        """Version of the compression that images are written with; 0 for none."""
        return 0 if self._sizes.compression is None else self._sizes.compression.version

    def encode(self, tokens: Float32) -> bytes:
        """Write one image's tokens, float32 [N, C]. Raises TokensError for values that cannot be stored."""
        if self._projection is None:
            return encode_tokens(tokens, self._sizes.token_codec)
        merged = merge_rows(tokens[None], self._sizes.stored_rows)
        reduced = MergedTokens(self._projection.reduce(merged.tokens), merged.weights)
        return encode_merged_tokens(reduced, self._sizes.token_codec, self.version)

    def rows_of(self, tokens: Float32) -> Int64:
        """Return the stored row that each of one image's tokens [N, C] is part of, int64 [N]."""
        count = self._sizes.token_rows
        members = None if self._projection is None else merge_rows(tokens[None], self._sizes.stored_rows).members
        return np.arange(count) if members is None else members[0]

    def fits(self, data: bytes) -> bool:
        """Return whether one image's tokens are in the bundle's form; others count as missing."""
        return is_in_form(data, self._sizes)

    def decode(self, encoded: Sequence[bytes]) -> StoredTokens:
        """Read the tokens of K images into one batch, as the re-ranker takes them.

        Raises:
            TokensError: bytes are damaged, or in another form.
        """
        return decode_tokens(encoded, self._sizes)

    def restore(self, stored: StoredTokens) -> Float32:
        """Return a decoded batch as float32 [K, N, C], as close to the encoder's tokens as the form allows.

        A merged row is repeated once for each of its tokens; attention ignores their order.
        """
        tokens: Float32 = stored.values.astype(np.float32) * stored.scales[..., None]
        if self._projection is None or stored.weights is None:
            return tokens
        return expand_rows(MergedTokens(self._projection.restore(tokens), stored.weights))
