"""A query before the store: its picture encoded, its text composed, and the scorer of its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from qdrant_cir.errors import ImageError, InputError, TokensError
from qdrant_cir.indexing.preparation import hash_image
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.preprocess import blank_pixels, load_image, preprocess
from qdrant_cir.model.sessions import ExecutionProvider
from qdrant_cir.model.text_tokenizer import TextTokenizer
from qdrant_cir.search.effort import StopRule
from qdrant_cir.search.scoring import NO_SCORES, CandidateScorer, CandidateTokens, RerankScores, rerank
from qdrant_cir.storage.points import StoredImage
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import (
    ComposedQuery,
    Float32,
    GalleryImage,
    ImageSource,
    Precision,
    Query,
)

__all__ = ["QueryModel", "ReadyQuery", "gallery_id"]


@dataclass(frozen=True, slots=True)
class _Reference:
    """A reference in the encoder's terms: vector float32 [D], tokens float32 [N, C]."""

    vector: Float32
    tokens: Float32


@dataclass(frozen=True, slots=True)
class ReadyQuery:
    """A query on its way to the store.

    Attributes:
        vector: float32 [D], what is searched.
        composed: what the re-ranker reads; None for an image-only query.
        excluded_id: image id to leave out of the answer, None for none.
        excluded_sha256: content to leave out of the answer, None for none.
        notes: sentences for the result.
        encode_seconds: reading and encoding the reference.
        compose_seconds: composing it with the text.
    """

    vector: Float32
    composed: ComposedQuery | None
    excluded_id: str | None
    excluded_sha256: str | None
    notes: tuple[str, ...]
    encode_seconds: float
    compose_seconds: float


class QueryModel:
    """The graphs of a bundle as a query needs them. Safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: ExecutionProvider = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        """Load the graphs; arguments as of :meth:`qdrant_cir.Retriever.open`, errors as :func:`open_graph`."""
        self.bundle = bundle
        self._encoder = ImageEncoder.open(bundle, provider=provider, threads=threads)
        self._composer = Composer.open(bundle, provider=provider, threads=threads)
        self._scorer = CandidateScorer(bundle, provider=provider, threads=threads, precision=precision)
        self._tokenizer = TextTokenizer(bundle)
        self._form = TokenForm(bundle)

    @property
    def precision(self) -> Precision:
        """What the re-ranker computes in."""
        return self._scorer.precision

    def prepare(
        self,
        query: Query,
        references: Mapping[str, StoredImage],
        *,
        excludes_reference: bool,
        started: float,
        clock: Callable[[], float] = perf_counter,
    ) -> ReadyQuery:
        """Encode and compose a query, by itself: its numbers do not depend on what else is asked.

        Nothing is lost by that on the CPU, where a batch takes as much time per query (``docs/performance.md``).

        Args:
            query: checked.
            references: what is stored of references that are a :class:`GalleryImage`, by id.
            excludes_reference: note what the reference is, so that it can be left out of the answer.
            started: what ``clock`` read before the stored references were read, which counts as encoding.
            clock: returns the seconds that have passed since any fixed moment.

        Raises:
            ImageError: the reference cannot be read.
            InputError: the text is not valid Unicode, or a gallery image is not in the collection.
            TokensError: the stored tokens of a gallery image cannot be used.
            ProviderError: a computation failed.
        """
        reference = self._encode(query, references)
        encoded = clock()
        text = query.modification_text.strip()
        composed = self._composer.compose(reference.tokens[None], [text])[0] if text else None
        return ReadyQuery(
            vector=reference.vector if composed is None else composed.vector,
            composed=composed,
            excluded_id=gallery_id(query) if excludes_reference else None,
            excluded_sha256=_excluded_sha256(query) if excludes_reference else None,
            notes=self._notes(query),
            encode_seconds=encoded - started,
            compose_seconds=clock() - encoded,
        )

    def score(
        self,
        query: ReadyQuery,
        candidates: CandidateTokens,
        stop: StopRule,
        *,
        started: float,
        clock: Callable[[], float] = perf_counter,
    ) -> RerankScores:
        """Score candidates in the order given until a rule says stop; the rest as :func:`rerank`."""
        if query.composed is None:
            return NO_SCORES
        return rerank(self._scorer, query.composed, candidates, stop, started=started, clock=clock)

    def _encode(self, query: Query, references: Mapping[str, StoredImage]) -> _Reference:
        """Give a query's reference in the encoder's terms."""
        picture = self._picture(query, references)
        if isinstance(picture, StoredImage):
            return self._stored(query, picture)
        spec = self.bundle.manifest.preprocessing
        pixels = blank_pixels(spec) if picture is None else preprocess(load_image(picture), spec)
        images = self._encoder.encode(pixels[None])
        return _Reference(images.vectors[0], images.tokens[0])

    def _picture(self, query: Query, references: Mapping[str, StoredImage]) -> ImageSource | StoredImage | None:
        """Give what a query's reference is read from: what is stored, a picture to encode, or None for neither."""
        if not isinstance(query.reference, GalleryImage):
            return query.reference
        image_id = query.reference.image_id
        if image_id not in references:
            raise InputError(
                f"The reference {image_id!r} is not in the collection. Give the id of an image that was "
                "indexed, or the picture itself."
            )
        stored = references[image_id]
        if self.bundle.has_candidate_encoder and query.modification_text.strip():
            return _source_of(stored)
        return stored

    def _stored(self, query: Query, stored: StoredImage) -> _Reference:
        """Bring a gallery image back into the encoder's terms; its tokens only where there is a text."""
        image_id = stored.image.image_id
        sizes = self.bundle.manifest.sizes
        if not query.modification_text.strip():
            return _Reference(stored.vector, np.zeros((sizes.token_rows, sizes.token_dims), dtype=np.float32))
        if stored.tokens.data is None:
            raise TokensError(
                f"The stored tokens of the reference {image_id!r} are {stored.tokens.problem}. Index it "
                "again, or give the picture itself."
            )
        tokens = self._form.restore(self._form.decode([stored.tokens.data]))
        return _Reference(stored.vector, tokens[0])

    def _notes(self, query: Query) -> tuple[str, ...]:
        text = query.modification_text.strip()
        if not text:
            return ("There is no modification text, so the picture itself was searched.",)
        notes = []
        if query.reference is None:
            notes.append("There is no reference image, so the text was composed with a blank picture.")
        if self._tokenizer.tokenize([text]).truncated[0]:
            kept = self.bundle.manifest.tokenizer.max_length
            notes.append(f"The modification text is too long: its first {kept} tokens were read.")
        return tuple(notes)


def _source_of(stored: StoredImage) -> str:
    """Locate the picture of a gallery image whose stored tokens are of the candidates' encoder, not the references'.

    Raises:
        InputError: the file is gone, or it is another picture by now.
    """
    image_id, source = stored.image.image_id, stored.image.source
    asks = (
        "This bundle encodes references and candidates by different encoders, so a reference must be encoded anew. "
        "Give the picture itself."
    )
    if source is None:
        raise InputError(f"It is not known from which file the reference {image_id!r} was read. {asks}")
    try:
        found = hash_image(ImageRecord(image_id, source, payload={}, source=None)).sha256
    except ImageError as error:
        raise InputError(f"The reference {image_id!r} cannot be read again: {error}. {asks}") from error
    if found != stored.image.sha256:
        raise InputError(f"{source} is no longer the picture that was indexed as {image_id!r}. {asks}")
    return source


def gallery_id(query: Query) -> str | None:
    """Give the id of a reference that is in the collection, None for another one or none."""
    return query.reference.image_id if isinstance(query.reference, GalleryImage) else None


def _excluded_sha256(query: Query) -> str | None:
    if query.reference is None or isinstance(query.reference, GalleryImage):
        return None
    return hash_image(ImageRecord("reference", query.reference, payload={}, source=None)).sha256
