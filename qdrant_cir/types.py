"""The values that cross module boundaries. Frozen, slotted, without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeAlias, overload
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.arguments import checked_seconds, shown
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""A value of a payload field: any JSON value."""

JsonObject: TypeAlias = dict[str, JsonValue]

Float32: TypeAlias = NDArray[np.float32]
Int64: TypeAlias = NDArray[np.int64]


PointId: TypeAlias = "int | UUID"
"""The id of a point, as Qdrant has it: an unsigned integer or a UUID."""


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """An image that is already in the collection.

    ``image_id`` is the id that it was indexed under; of an attached collection, the id of its point.
    """

    image_id: str | PointId


ImageSource: TypeAlias = "str | PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[np.uint8] | Image"
"""A path, an encoded file as bytes or open for reading, a Pillow image, or pixels: uint8 RGB [H, W, 3], grey [H, W]."""


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Limits of one picture; a picture beyond them is refused before it is decoded.

    Attributes:
        pixels: the most that are decoded of one picture. They take 4 bytes each, and decoding never takes more than 8.
            Formats whose decoders need more count as more pixels: WebP and AVIF twice, JPEG 2000 two to three times,
            progressive JPEG up to 1.5. A JPEG that is decoded at a part of its size counts by that part and may declare
            four times as many.
        side: pixels of the longer side.
        scans: of a JPEG, each a pass over the picture; cameras and programs write up to ten.
    """

    pixels: int = 64_000_000
    side: int = 20_000
    scans: int = 64

    def __post_init__(self) -> None:
        """Check the numbers. Raises InputError."""
        for name in ("pixels", "side", "scans"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"PictureLimits.{name} is {shown(value)}; expected a whole number of at least 1.")


DEFAULT_LIMITS = PictureLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressLimits:
    """Limits of one picture that is opened by its address; files have none of these.

    Attributes:
        max_bytes: that an address may send before it is refused.
        seconds: for one address as a whole, redirects included.
    """

    max_bytes: int = 50_000_000
    seconds: float = 20.0

    def __post_init__(self) -> None:
        """Check the numbers. Raises InputError."""
        if not isinstance(self.max_bytes, int) or isinstance(self.max_bytes, bool) or self.max_bytes < 1:
            raise InputError(
                f"AddressLimits.max_bytes is {shown(self.max_bytes)}; expected a whole number of at least 1."
            )
        if checked_seconds(self.seconds, name="AddressLimits.seconds") == 0:
            raise InputError("AddressLimits.seconds is 0; expected a number of seconds above 0.")


Reference: TypeAlias = "ImageSource | GalleryImage"
"""A picture of the caller, or one that is in the collection."""


@dataclass(frozen=True, slots=True)
class Query:
    """A reference image plus a modification text.

    With both, the query is composed. Without a text it is image-only: the reference's own embedding is
    searched and nothing is re-ranked, because there is no modification. Without a reference it is
    text-only: the text is composed with a blank picture, and re-ranked like any other. A query needs at least
    one of the two.

    Attributes:
        reference: one picture, or several in a list or a tuple; None for none.
        modification_text: what should be different.
        must_not: what the results must not show. Stage one moves away from the text, without the references;
            stage two subtracts a candidate's score for the references with this text.
        weights: one per reference, at least 0 and not all 0; None for equal ones.
        must_not_weight: how much ``must_not`` counts against a weight of 1 for the rest, 0 to 1,000,000.
    """

    reference: Reference | Sequence[Reference] | None = None
    modification_text: str = ""
    must_not: str = ""
    weights: Sequence[float] | None = None
    must_not_weight: float = 0.5


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """The image encoder's output for a batch of B images.

    Attributes:
        tokens: float32 [B, N, C], all N final states; row 0 is the class token. The composer reads
            them of a reference.
        vectors: float32 [B, D], unit length: what Qdrant searches.
        candidate_tokens: float32 [B, N, C], the tokens that are stored and that the re-ranker reads: the same
            array as ``tokens``, unless stage two has its own image encoder.
    """

    tokens: Float32
    vectors: Float32
    candidate_tokens: Float32


@dataclass(frozen=True, slots=True)
class Composition:
    """One reference composed with one text.

    Attributes:
        vector: float32 [D], unit length, compared with gallery vectors by cosine.
        input_ids: int64 [L], the text's token ids without padding.
        fusion_states: float32 [L, H], last hidden states of all text tokens (``z_t``; paper, section 3.2).
        is_truncated: the text was longer than the model reads.
        is_understood: the model knows at least one word of the text.
    """

    vector: Float32
    input_ids: Int64
    fusion_states: Float32
    is_truncated: bool = False
    is_understood: bool = True


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
        payload: the user's fields, without the library's own.
        source: where the picture was read from when it was indexed; None where that is not known.
        retrieval_score: cosine of stage one.
        retrieval_rank: place in stage one, from 1.
        rerank_score: the re-ranker's score, higher is better; None for a candidate that was not re-ranked.
        rerank_rank: place among the re-ranked candidates, from 1; None likewise.
        point_id: the id of its point, as Qdrant has it; None for a picture that is in no collection.
        point: as the store returned it or the caller of ``rerank`` passed it; with vectors only where they were read.
        group: the value that the search grouped by; this is the best of its members.
        view: the source of the picture that scored best, of a point that has several; None where it was not re-ranked.
    """

    image_id: str
    payload: Mapping[str, JsonValue]
    source: str | None
    retrieval_score: float
    retrieval_rank: int
    rerank_score: float | None
    rerank_rank: int | None
    point_id: PointId | None = None
    point: object = field(default=None, repr=False, compare=False)
    group: JsonValue = None
    view: str | None = None


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
"""The precision that stage two is computed in: ``float32`` is exact; a bundle may also hold graphs of the others,
whose scores are close to those of ``float32``."""

RerankMode: TypeAlias = Literal["none", "exact", "compressed", "adaptive", "budget"]
"""``exact`` scored every candidate from all its tokens, ``compressed`` from the fewer rows and dimensions that the
bundle stores; ``adaptive`` ended when the first places were settled, and ``budget`` when the time was used up;
``none`` is stage one alone."""


@dataclass(frozen=True, slots=True)
class SearchResult(Sequence[Candidate]):
    """The answer to one query, and a sequence of its candidates.

    Attributes:
        candidates: best first; at most ``limit``. Candidates that were not re-ranked come after those that
            were, in stage one's order.
        timings: seconds per step.
        rerank_mode: how stage two was computed.
        notes: plain sentences about what was skipped, truncated or stale, and why. Empty when nothing was.
        scored: candidates that stage two scored, whether they are returned or not.
        precision: what their scores were computed in.
        match_probability: the probability that the first place is what was asked for, of a gallery that was calibrated
            (``qdrant-cir calibrate-match``); None where it is not known.
        is_match: False where that is below the least that was asked for: there is no good match. None likewise.
    """

    candidates: tuple[Candidate, ...]
    timings: Timings
    rerank_mode: RerankMode
    notes: tuple[str, ...]
    scored: int = 0
    precision: Precision = "float32"
    match_probability: float | None = None
    is_match: bool | None = None

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, place: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self.candidates[place]

    def __len__(self) -> int:
        return len(self.candidates)


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """An answer while it is being made: after stage one, and after every step of the re-ranking.

    Attributes:
        candidates: all that stage one found: those scored so far by their score, then the others in stage one's order.
        scored: candidates scored so far; 0 after stage one.
    """

    candidates: tuple[Candidate, ...]
    scored: int


class Encoder(Protocol):
    """Images to tokens and vectors."""

    @property
    def precision(self) -> Precision:
        """The precision that it computes in; images of any other than ``float32`` are marked in the collection."""
        ...

    def encode(self, pixel_values: Float32) -> EncodedImages:
        """Encode float32 [B, 3, H, W] preprocessed pixels."""
        ...
