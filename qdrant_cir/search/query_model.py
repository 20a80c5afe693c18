"""A query for the model: its references encoded, its text composed, and its candidates scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isqrt
from numbers import Integral, Real
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.arguments import checked_id, shown
from qdrant_cir.errors import CirError, ImageError, InputError, TokensError
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import blank_pixels, hash_source, read_pixels, source_digests
from qdrant_cir.model.text_tokenizer import ReadableText
from qdrant_cir.search.explanation import CellEffects, WordSpan, words_of
from qdrant_cir.search.scoring import CandidateScorer, CandidateScores, Term
from qdrant_cir.storage.points import HitTokens, StoredImage
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import (
    Composition,
    Float32,
    GalleryImage,
    ImageSource,
    PointId,
    Precision,
    Query,
    Reference,
    RerankMode,
)

__all__ = [
    "ComposedQuery",
    "EncodedReference",
    "ExplainedCells",
    "QueryModel",
    "WithoutWord",
    "checked_query",
    "gallery_ids",
    "picture_digests",
    "references_of",
]

_NAMED_WORDS = 10
_NOTHING = 1e-5
"""A fall of the score that is rounding."""
_WORDS_OF_CELLS = 3
"""Words whose cells are looked for; each costs as much as the whole text. The first alone finds fewer."""
MOST_WORDS = 64
"""Words of a text that are explained; further ones would cost a re-scoring each."""
_LARGEST_WEIGHT = 1e6
"""The largest weight of ``must_not``: far beyond it float32 holds nothing of the rest of the query."""


@dataclass(frozen=True, slots=True)
class EncodedReference:
    """An encoded reference: vector float32 [D], tokens float32 [N, C], and its weight in the query."""

    vector: Float32
    tokens: Float32
    weight: float


@dataclass(frozen=True, slots=True)
class ComposedQuery:
    """A query as it is searched and re-ranked.

    Attributes:
        vector: float32 [D], unit length: the query vector for Qdrant.
        using: name of the vector that it is compared with.
        notes: plain sentences about parts of the query that were left out or cut.
        terms: the terms that the re-ranker scores; none for a query without a text.
        fingerprint: of the bundle that composed it.
    """

    vector: Float32
    using: str
    notes: tuple[str, ...]
    terms: tuple[Term, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WithoutWord:
    """A candidate's score without one word of the text.

    Attributes:
        span: the word.
        score: None where the model reads the same without it.
        is_known: whether the model knows it.
        terms: the query without it; none where the model reads the same.
    """

    span: WordSpan
    score: float | None
    is_known: bool
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class ExplainedCells:
    """The cells of a candidate's picture, or a sentence that says why there are none."""

    effects: CellEffects | None
    notes: tuple[str, ...] = ()


class QueryModel:
    """The graphs of a bundle as a query needs them. Safe to share between threads."""

    def __init__(self, bundle: Bundle, compute: Compute, *, encoder: ImageEncoder | None = None) -> None:
        """Load the graphs; errors as :func:`open_graph`.

        Args:
            bundle: the model.
            compute: of the re-ranker; image encoder and composer are exact.
            encoder: the bundle's exact image encoder where it is open already.
        """
        self.bundle = bundle
        exact = replace(compute, precision="float32")
        self._encoder = ImageEncoder.open(bundle, exact) if encoder is None else encoder
        self._composer = Composer.open(bundle, exact)
        self._scorer = CandidateScorer(bundle, compute)
        self._form = TokenForm(bundle)
        self._blank: EncodedReference | None = None

    @property
    def precision(self) -> Precision:
        """The precision that the re-ranker computes in."""
        return self._scorer.precision

    @property
    def full_mode(self) -> RerankMode:
        """The mode when all candidates are scored: ``exact`` or ``compressed``."""
        return self._scorer.full_mode

    def encode(self, query: Query, stored: Mapping[str | PointId, StoredImage]) -> list[EncodedReference]:
        """Encode the references of a query, each by itself: its numbers do not depend on the rest of the query.

        Args:
            query: checked.
            stored: the stored images of references that are a :class:`GalleryImage`, by id.

        Returns:
            One per reference whose weight is above 0; weights add up to 1. Without a reference, a blank picture.

        Raises:
            ImageError: a reference cannot be read.
            InputError: a gallery image is not in the collection.
            TokensError: the stored tokens of a gallery image cannot be used.
            ProviderError: a computation failed.
        """
        has_text = bool(query.modification_text.strip() or query.must_not.strip())
        return [
            self._encode(reference, weight, stored, has_text=has_text) for reference, weight in references_of(query)
        ]

    def compose(self, query: Query, references: Sequence[EncodedReference], *, using: str) -> ComposedQuery:
        """Compose encoded references with the texts of their query.

        Stage one searches the weighted mean of the composed vectors, minus ``must_not_weight`` times the vector of the
        ``must_not`` text; stage two scores the same sum of terms. ``using`` is the name of the gallery's vector.

        Raises:
            InputError: a text is not valid Unicode, or holds no word that the model knows and there is no reference.
            ProviderError: a computation failed.
        """
        read = self._composer.readable(query.modification_text.strip())
        denied = self._composer.readable(query.must_not.strip())
        text, must_not = read.text, denied.text
        unknown = read.unknown if must_not else (*read.unknown, *denied.unknown)
        if unknown and not text and query.reference is None:
            raise InputError(
                f"The model does not know: {_listed(unknown)}; and there is no reference image. Use other words, or "
                "give a picture."
            )
        composed = [self._composer.compose(reference.tokens[None], [text])[0] for reference in references if text]
        vectors = [c.vector for c in composed] if text else [reference.vector for reference in references]
        weights = [reference.weight for reference in references]
        terms = [Term(c, weight) for c, weight in zip(composed, weights, strict=False)]
        vector = vectors[0] if len(vectors) == 1 else _unit(np.average(vectors, axis=0, weights=weights))
        if must_not:
            against = self._composer.compose(self._encode_blank().tokens[None], [must_not])[0]
            vector = _unit(vector - query.must_not_weight * against.vector)
            if text:
                terms += [
                    Term(
                        self._composer.compose(reference.tokens[None], [must_not])[0],
                        -query.must_not_weight * reference.weight,
                    )
                    for reference in references
                ]
        return ComposedQuery(
            vector=vector,
            using=using,
            notes=self._notes(query, read, denied, composed),
            terms=tuple(terms),
            fingerprint=self.bundle.fingerprint,
        )

    def score(self, query: ComposedQuery, candidates: Sequence[HitTokens]) -> CandidateScores:
        """Score candidates; errors as :meth:`CandidateScorer.score`."""
        return self._scorer.score(query.terms, candidates)

    def score_without_words(
        self, query: Query, references: Sequence[EncodedReference], composed: ComposedQuery, candidate: HitTokens
    ) -> list[WithoutWord]:
        """Score one candidate once per word of the modification text, without the word.

        Args:
            query: checked.
            references: of the query, encoded.
            composed: the query, with at least one term.
            candidate: with tokens.

        Returns:
            One per word, in the text's order; of a very long text the first ``MOST_WORDS``.
        """
        text = query.modification_text
        spans = words_of(text)[:MOST_WORDS]
        whole = self._plain(text)
        # words in the order of their texts without them, each composed once
        left = {span: self._plain(f"{text[: span.start]} {text[span.stop :]}") for span in spans}
        texts = [each for each in dict.fromkeys(left.values()) if each != whole]
        rows = [
            self._composer.compose(np.repeat(reference.tokens[None], len(texts), axis=0), texts)
            for reference in references
        ]
        against = composed.terms[len(references) :]
        terms: dict[str, tuple[Term, ...]] = {}
        scores: dict[str, float] = {}
        for place, each in enumerate(texts):
            own = [Term(row[place], reference.weight) for row, reference in zip(rows, references, strict=True)]
            terms[each] = (*own, *against)
            scores[each] = self._scorer.score(terms[each], [candidate]).by_id[candidate.point_id]
        return [
            WithoutWord(
                span,
                scores.get(left[span]),
                bool(self._composer.readable(span.word).text),
                terms.get(left[span], ()),
            )
            for span in spans
        ]

    def explain_cells(
        self,
        composed: ComposedQuery,
        candidate: HitTokens,
        words: Sequence[WithoutWord],
        *,
        source: str | None,
        opener: Callable[[str], ImageSource] | None,
    ) -> ExplainedCells:
        """Measure what every cell of a candidate's picture adds to its score.

        Args:
            composed: the query, with at least one term.
            candidate: with tokens.
            words: its scores without the words of the text.
            source: of its picture, which is encoded again where the bundle merges tokens.
            opener: opens it; None for files.
        """
        spec, name = self.bundle.manifest, self.bundle.manifest.name
        side = isqrt(spec.token_rows - 1)
        if side * side != spec.token_rows - 1:
            return ExplainedCells(
                None, (f"The image tokens of the bundle {name!r} are no grid, so there are no cells.",)
            )
        drops = self._scorer.drops_without_rows(composed.terms, candidate)
        if drops is None:
            return ExplainedCells(
                None,
                (
                    f"The bundle {name!r} has no re-ranker with weights, which cells need. Add it: "
                    f"`python -m onnx_export add-weighted {self.bundle.folder}`.",
                ),
            )
        if not np.abs(drops).max() > _NOTHING:
            note = f"The re-ranker of the bundle {name!r} reads the picture as a whole, so no cell adds to the score."
            return ExplainedCells(None, (note,))
        if spec.compression is not None:
            try:
                places = self._merged_into(candidate, source, opener)
            except CirError as error:
                return ExplainedCells(
                    None,
                    (
                        f"The bundle {name!r} merges tokens, so that cells need the picture again: "
                        f"{str(error).rstrip('.')}.",
                    ),
                )
        else:
            places = np.arange(spec.token_rows)
        # what the text adds: the fall less the fall without a word, of the words that count most
        best = sorted((word for word in words if word.score is not None), key=lambda word: word.score or 0.0)
        of_words = [self._scorer.drops_without_rows(word.terms, candidate) for word in best[:_WORDS_OF_CELLS]]
        differences = [drops - without for without in of_words if without is not None]
        text_drops = np.mean(differences, axis=0) if differences else np.zeros_like(drops)

        def grid(falls: Float32) -> tuple[tuple[float, ...], ...]:
            # cells that were merged into one row share what it adds; [N - 1] without the class token to the grid
            shares = (falls / np.bincount(places))[places][1:].reshape(side, side)
            return tuple(tuple(row) for row in shares.tolist())

        return ExplainedCells(CellEffects(grid(drops), grid(text_drops), spec.preprocessing.pad_ratio))

    def _plain(self, text: str) -> str:
        """Return what the model reads of a text, with single spaces."""
        return " ".join(self._composer.readable(text.strip()).text.split())

    def _merged_into(
        self, candidate: HitTokens, source: str | None, opener: Callable[[str], ImageSource] | None
    ) -> NDArray[np.int64]:
        """Return the stored row of every token [N] of a candidate, from its picture.

        Raises:
            InputError: it is not known where the picture is, or it is another one now.
            CirError: it cannot be read or encoded.
        """
        if source is None:
            raise InputError("It is not known where it is.")
        picture = source if opener is None else opener(source)
        pixels = read_pixels(picture, self.bundle.manifest.preprocessing)
        tokens = self._encoder.encode(pixels[None]).candidate_tokens[0]
        if self._form.encode(tokens) != candidate.data:
            raise InputError(f"{source} is no longer the picture that was indexed.")
        return self._form.rows_of(tokens)

    def encode_candidate(self, source: ImageSource) -> bytes:
        """Encode a picture as a candidate, and return its tokens in the form in which the bundle stores them.

        Raises:
            ImageError: the picture cannot be read.
            TokensError, ProviderError: as when indexing.
        """
        pixels = read_pixels(source, self.bundle.manifest.preprocessing)
        return self._form.encode(self._encoder.encode(pixels[None]).candidate_tokens[0])

    def _encode(
        self, reference: Reference | None, weight: float, stored: Mapping[str | PointId, StoredImage], *, has_text: bool
    ) -> EncodedReference:
        if reference is None:
            return self._encode_blank()
        picture = self._picture(reference, stored, has_text=has_text)
        if isinstance(picture, StoredImage):
            return self._stored(picture, weight, has_text=has_text)
        images = self._encoder.encode(read_pixels(picture, self.bundle.manifest.preprocessing)[None])
        return EncodedReference(images.vectors[0], images.tokens[0], weight)

    def _encode_blank(self) -> EncodedReference:
        """Return the reference of a query that has none, encoded once.

        Two threads may both encode it, with the same result.
        """
        if self._blank is None:
            images = self._encoder.encode(blank_pixels(self.bundle.manifest.preprocessing)[None])
            self._blank = EncodedReference(images.vectors[0], images.tokens[0], 1.0)
        return self._blank

    def _picture(
        self, reference: Reference, stored: Mapping[str | PointId, StoredImage], *, has_text: bool
    ) -> ImageSource | StoredImage:
        """Return the stored image of a reference, or the picture to encode."""
        if not isinstance(reference, GalleryImage):
            return reference
        image_id = reference.image_id
        if image_id not in stored:
            raise InputError(
                f"The reference {image_id!r} is not in the collection. Give the id of an image that was "
                "indexed, or the picture itself."
            )
        if self.bundle.has_candidate_encoder and has_text:
            return _source_of(stored[image_id])
        return stored[image_id]

    def _stored(self, stored: StoredImage, weight: float, *, has_text: bool) -> EncodedReference:
        """Restore the vector of a gallery image, and its tokens if there is a text."""
        sizes = self.bundle.manifest.sizes
        if not has_text:
            tokens = np.zeros((sizes.token_rows, sizes.token_dims), dtype=np.float32)
            return EncodedReference(stored.vector, tokens, weight)
        if stored.tokens.data is None:
            raise TokensError(
                f"The stored tokens of the reference {stored.image.image_id!r} are {stored.tokens.problem}. Index it "
                "again, or give the picture itself."
            )
        tokens = self._form.restore(self._form.decode([stored.tokens.data]))
        return EncodedReference(stored.vector, tokens[0], weight)

    def _notes(
        self, query: Query, read: ReadableText, denied: ReadableText, composed: Sequence[Composition]
    ) -> tuple[str, ...]:
        notes = []
        if read.unknown:
            left = _ignored(read) if read.text else "no other word is left, so the picture itself was searched"
            notes.append(f"The model does not know: {_listed(read.unknown)}; {left}.")
        elif not read.text:
            notes.append("There is no modification text, so the picture itself was searched.")
        if denied.unknown:
            notes.append(f"The model does not know, in must_not: {_listed(denied.unknown)}; {_ignored(denied)}.")
        if denied.text and not read.text:
            notes.append("Without a modification text nothing is re-ranked: must_not changed only the retrieval.")
        if read.text and query.reference is None:
            notes.append("There is no reference image, so the text was composed with a blank picture.")
        if composed and composed[0].is_truncated:
            kept = self.bundle.manifest.tokenizer.max_length
            notes.append(f"The modification text is too long: its first {kept} tokens were read.")
        return tuple(notes)


def _ignored(read: ReadableText) -> str:
    return "it was ignored" if len(read.unknown) == 1 else "they were ignored"


def _listed(words: tuple[str, ...]) -> str:
    """Return words as one would list them; of many the first ten."""
    shown = ", ".join(words[:_NAMED_WORDS])
    return shown if len(words) <= _NAMED_WORDS else f"{shown} and {len(words) - _NAMED_WORDS} more"


def checked_query(query: Query) -> Query:
    """Return a query with plain texts. Raises InputError if it is not a query or its texts are not text.

    Other errors are those of :func:`references_of`.
    """
    if not isinstance(query, Query):
        raise InputError(f"The query is {shown(query)}; expected a Query(reference, modification_text).")
    text = _text(query.modification_text, name="modification_text")
    checked = replace(query, modification_text=text, must_not=_text(query.must_not, name="must_not"))
    references_of(checked)
    return checked


def _text(value: object, *, name: str) -> str:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is a {type(value).__name__}; expected a text.")
    return value or ""


def references_of(query: Query) -> list[tuple[Reference | None, float]]:
    """Return the references of a query with their weights, which add up to 1; a blank one where there is none.

    Raises:
        InputError: the query is empty, or a weight is missing, not finite or below 0, or all are 0.
    """
    given = query.reference
    many: list[Reference | None] = [*given] if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
    if not many:
        raise InputError("The list of references is empty. Give a reference image, or None for none.")
    if len(many) > 1 and any(reference is None for reference in many):
        raise InputError("One of the references is None. Leave it out, or give a picture.")
    if many[0] is None and not query.modification_text.strip():
        raise InputError("The query has neither a reference image nor a modification text. Give at least one.")
    for reference in many:
        if isinstance(reference, UUID | Integral) and not isinstance(reference, bool):
            raise InputError(
                f"The reference is {shown(reference)}; for a picture of the collection, give GalleryImage(id)."
            )
    must_not_weight = _number(query.must_not_weight, name="must_not_weight")
    if not 0 <= must_not_weight <= _LARGEST_WEIGHT:
        raise InputError(f"must_not_weight is {must_not_weight:g}; it must be from 0 to {_LARGEST_WEIGHT:g}.")
    given_weights = [1.0] * len(many) if query.weights is None else query.weights
    if not isinstance(given_weights, Sequence) or isinstance(given_weights, str):
        raise InputError(f"weights is a {type(given_weights).__name__}; expected a list of numbers, one per reference.")
    weights = [_number(weight, name="a weight") for weight in given_weights]
    if len(weights) != len(many):
        raise InputError(f"There are {len(many)} references and {len(weights)} weights. Give one weight per reference.")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < inf:
        raise InputError(
            f"The weights are {weights}; each must be at least 0, one of them above 0, and their sum finite."
        )
    return [(reference, weight / total) for reference, weight in zip(many, weights, strict=True) if weight > 0]


def _number(value: object, *, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not _is_finite(value):
        raise InputError(f"{name} is {shown(value)}; expected a finite number.")
    return float(value)


def _is_finite(value: Real) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def gallery_ids(query: Query) -> list[str | PointId]:
    """Return the ids of a query's references that are in the collection, each once."""
    ids = [
        checked_id(reference.image_id, name="The id of a GalleryImage")
        for reference, _ in references_of(query)
        if isinstance(reference, GalleryImage)
    ]
    return list(dict.fromkeys(ids))


def picture_digests(query: Query) -> frozenset[str]:
    """Return the sha256 of a query's references that are pictures of the caller's. Raises ImageError."""
    digests: set[str] = set()
    for reference, _ in references_of(query):
        if reference is not None and not isinstance(reference, GalleryImage):
            digests |= source_digests(reference)
    return frozenset(digests)


def _source_of(stored: StoredImage) -> str:
    """Locate the picture of a gallery image, to encode it again as a reference.

    Raises:
        InputError: the file is gone, or it now holds another picture.
    """
    image_id, source = stored.image.image_id, stored.image.source
    asks = (
        "This bundle encodes references and candidates by different encoders, so a reference must be encoded again. "
        "Give the picture itself."
    )
    if source is None:
        raise InputError(f"The file of the reference {image_id!r} is not known. {asks}")
    try:
        found = hash_source(source)
    except ImageError as error:
        raise InputError(
            f"The reference {image_id!r} cannot be read again: {str(error).rstrip('.')}. {asks}"
        ) from error
    if found != stored.image.sha256:
        raise InputError(f"{source} is no longer the picture that was indexed as {image_id!r}. {asks}")
    return source


def _unit(vector: Float32) -> Float32:
    """Return a vector at unit length, float32 [D]; a zero vector as it is."""
    length = float(np.linalg.norm(vector))
    unit: Float32 = (vector / length if length else vector).astype(np.float32)
    return unit
