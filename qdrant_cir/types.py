"""The values that cross module boundaries. Frozen, slotted, without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""What a payload field may hold: what JSON may hold."""

JsonObject: TypeAlias = dict[str, JsonValue]

Float32: TypeAlias = NDArray[np.float32]
Int64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """An image that is already in the collection, by the id it was indexed under."""

    image_id: str


ImageSource: TypeAlias = "str | PathLike[str] | bytes | Image"
"""A path, the bytes of an encoded file, or a Pillow image."""


@dataclass(frozen=True, slots=True)
class Query:
    """A reference image plus a modification text.

    With both, the query is composed. Without a text it is image-only: the reference's own embedding is
    searched and nothing is re-ranked, for there is no modification to re-rank by. Without a reference it is
    text-only: the text is composed with a blank picture, and re-ranked like any other. One of the two must be
    given.
    """

    reference: ImageSource | GalleryImage | None = None
    modification_text: str = ""


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What the image encoder gives for a batch of B images.

    Attributes:
        tokens: float32 [B, N, C], all N final states; row 0 is the class token. What the composer reads of a
            reference.
        vectors: float32 [B, D], unit length: what Qdrant searches.
        candidate_tokens: float32 [B, N, C], what the re-ranker reads of a candidate and what is stored: the same
            array as ``tokens``, but where stage two has an image encoder of its own.
    """

    tokens: Float32
    vectors: Float32
    candidate_tokens: Float32


@dataclass(frozen=True, slots=True)
class ComposedQuery:
    """What the composer gives for one query.

    Attributes:
        vector: float32 [D], unit length, compared with gallery vectors by cosine.
        input_ids: int64 [L], the text's token ids without padding.
        fusion_states: float32 [L, H], last hidden states of all text tokens (``z_t``; paper, section 3.2).
    """

    vector: Float32
    input_ids: Int64
    fusion_states: Float32


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """Candidate tokens in the form in which they are stored and the re-ranker graph reads them.

    Attributes:
        values: int8, float16 or float32 [K, N, C]; [K, M, R] where the bundle compresses tokens.
        scales: float32 [K, N]; ``values * scales[..., None]`` gives the tokens back. Ones for float forms.
        weights: float32 [K, M], how many tokens a row stands for; None where tokens are not compressed.
    """

    values: NDArray[np.int8] | NDArray[np.float16] | NDArray[np.float32]
    scales: Float32
    weights: Float32 | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One gallery image of an answer, in final order.

    Attributes:
        image_id: the id it was indexed under.
        payload: the user's fields, without anything of ours.
        source: where the picture was read from when it was indexed, None for iterables without one.
        retrieval_score: cosine of stage one.
        retrieval_rank: place in stage one, from 1.
        rerank_score: the re-ranker's score, higher is better; None for a candidate that was not re-ranked.
        rerank_rank: place among the re-ranked candidates, from 1; None likewise.
    """

    image_id: str
    payload: Mapping[str, JsonValue]
    source: str | None
    retrieval_score: float
    retrieval_rank: int
    rerank_score: float | None
    rerank_rank: int | None


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that each step of one query took; 0.0 for a step that was skipped."""

    encode: float
    compose: float
    retrieve: float
    fetch: float
    rerank: float
    total: float


Precision: TypeAlias = Literal["float32", "float16", "int8"]
"""The arithmetic that stage two is computed in: ``float32`` is exact; a bundle may hold graphs of the others, whose
scores are close to its own."""

RerankMode: TypeAlias = Literal["none", "exact", "compressed", "adaptive", "budget"]
"""``exact`` scored every candidate from all its tokens, ``compressed`` from the fewer rows and dimensions that the
bundle stores; ``adaptive`` ended when the first places were settled, and ``budget`` when the time was over; ``none`` is
stage one alone."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        candidates: best first; at most ``limit``. Candidates that were not re-ranked stand after those that
            were, in stage one's order.
        timings: seconds per step.
        rerank_mode: how stage two was computed.
        notes: plain sentences about what was skipped, truncated or stale, and why. Empty when nothing was.
        scored: candidates that stage two gave a score, whether they are returned or not.
        precision: what their scores were computed in.
    """

    candidates: tuple[Candidate, ...]
    timings: Timings
    rerank_mode: RerankMode
    notes: tuple[str, ...]
    scored: int = 0
    precision: Precision = "float32"


class Encoder(Protocol):
    """Images to tokens and vectors."""

    @property
    def precision(self) -> Precision:
        """What it computes in; images of another precision than ``float32`` are marked so in the collection."""
        ...

    def encode(self, pixel_values: Float32) -> EncodedImages:
        """Encode float32 [B, 3, H, W] preprocessed pixels."""
        ...
