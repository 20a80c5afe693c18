"""A query before the store: its picture encoded, its text composed, and the scorer of its candidates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.bundle import Bundle
from qdrant_cir.composer import Composer
from qdrant_cir.errors import ImageError, InputError, TokensError
from qdrant_cir.gallery_points import HitTokens, StoredImage
from qdrant_cir.image_encoder import ImageEncoder
from qdrant_cir.image_preparation import hash_image
from qdrant_cir.image_sources import ImageRecord
from qdrant_cir.preprocess import blank_pixels, load_image, preprocess
from qdrant_cir.reranker import Reranker
from qdrant_cir.sessions import ExecutionProvider
from qdrant_cir.text_tokenizer import TextTokenizer
from qdrant_cir.token_codec import decode_tokens
from qdrant_cir.types import (
    ComposedQuery,
    Float32,
    GalleryImage,
    ImageSource,
    Query,
)

__all__ = ["QueryModel", "ReadyQuery", "Scores", "referenced_ids"]


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
        encode_seconds: for a batch, its time divided by its size.
        compose_seconds: likewise.
    """

    vector: Float32
    composed: ComposedQuery | None
    excluded_id: str | None
    excluded_sha256: str | None
    notes: tuple[str, ...]
    encode_seconds: float
    compose_seconds: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What the re-ranker says of the candidates.

    Attributes:
        by_id: its score by image id; higher is better.
        problems: why a candidate has no score, by image id.
    """

    by_id: Mapping[str, float]
    problems: Mapping[str, str]


class QueryModel:
    """The graphs of a bundle as a query needs them. Safe to share between threads."""

    def __init__(self, bundle: Bundle, *, provider: ExecutionProvider = "auto", threads: int | None = None) -> None:
        """Load the graphs; errors as :func:`qdrant_cir.sessions.open_graph`."""
        self.bundle = bundle
        self._encoder = ImageEncoder.open(bundle, provider=provider, threads=threads)
        self._composer = Composer.open(bundle, provider=provider, threads=threads)
        self._reranker = Reranker.open(bundle, provider=provider, threads=threads)
        self._tokenizer = TextTokenizer(bundle)

    def prepare(
        self,
        queries: Sequence[Query],
        references: Mapping[str, StoredImage],
        *,
        excludes_reference: bool,
        started: float,
    ) -> list[ReadyQuery]:
        """Encode and compose a batch.

        Args:
            queries: B checked queries, B >= 1.
            references: what is stored of the references that are a :class:`GalleryImage`, by id.
            excludes_reference: note what each reference is, so that it can be left out of the answer.
            started: ``time.perf_counter()`` before the stored references were read, which counts as encoding.

        Raises:
            ImageError: a reference cannot be read.
            InputError: a text is not valid Unicode, or a gallery image is not in the collection.
            TokensError: the stored tokens of a gallery image cannot be used.
            ProviderError: a computation failed.
        """
        encoded = self._encode(queries, references)
        encode_seconds = (time.perf_counter() - started) / len(queries)
        started = time.perf_counter()
        composed = self._compose(queries, encoded)
        compose_seconds = (time.perf_counter() - started) / len(queries)
        return [
            ReadyQuery(
                vector=encoded[place].vector if query is None else query.vector,
                composed=query,
                excluded_id=_gallery_id(queries[place]) if excludes_reference else None,
                excluded_sha256=_excluded_sha256(queries[place]) if excludes_reference else None,
                notes=self._notes(queries[place]),
                encode_seconds=encode_seconds,
                compose_seconds=compose_seconds,
            )
            for place, query in enumerate(composed)
        ]

    def score(self, query: ReadyQuery, candidates: Sequence[HitTokens]) -> Scores:
        """Score the candidates whose tokens can be read; errors as :meth:`Reranker.score`."""
        if query.composed is None:
            return Scores({}, {})
        problems = {tokens.image_id: str(tokens.problem) for tokens in candidates if tokens.data is None}
        readable = {tokens.image_id: tokens.data for tokens in candidates if tokens.data is not None}
        sizes = self.bundle.manifest.sizes
        try:
            stored = decode_tokens(list(readable.values()), sizes)
        except TokensError:
            # one of them is bad: find it, so that the others count
            for image_id, data in list(readable.items()):
                try:
                    decode_tokens([data], sizes)
                except TokensError:
                    problems[image_id] = "damaged"
                    del readable[image_id]
            stored = decode_tokens(list(readable.values()), sizes)
        scores = self._reranker.score(query.composed, stored).tolist()
        return Scores(dict(zip(readable, scores, strict=True)), problems)

    def _encode(self, queries: Sequence[Query], references: Mapping[str, StoredImage]) -> list[_Reference]:
        """Give every query's reference in the encoder's terms; pictures are encoded in one run."""
        pictures = [self._picture(query, references) for query in queries]
        spec = self.bundle.manifest.preprocessing
        pixels = [
            blank_pixels(spec) if picture is None else preprocess(load_image(picture), spec)
            for picture in pictures
            if not isinstance(picture, StoredImage)
        ]
        fresh: Iterator[_Reference] = iter(())
        if pixels:
            images = self._encoder.encode(np.stack(pixels))
            fresh = map(_Reference, images.vectors, images.tokens)
        return [
            self._stored(query, picture) if isinstance(picture, StoredImage) else next(fresh)
            for query, picture in zip(queries, pictures, strict=True)
        ]

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
        tokens = decode_tokens([stored.tokens.data], sizes)
        return _Reference(stored.vector, tokens.values[0].astype(np.float32) * tokens.scales[0, :, None])

    def _compose(self, queries: Sequence[Query], encoded: Sequence[_Reference]) -> list[ComposedQuery | None]:
        """Compose the queries that have a text in one run; None for the others."""
        places = [place for place, query in enumerate(queries) if query.modification_text.strip()]
        composed: list[ComposedQuery | None] = [None] * len(queries)
        if places:
            tokens = np.stack([encoded[place].tokens for place in places])
            texts = [queries[place].modification_text.strip() for place in places]
            for place, query in zip(places, self._composer.compose(tokens, texts), strict=True):
                composed[place] = query
        return composed

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


def referenced_ids(queries: Sequence[Query]) -> list[str]:
    """List the gallery images that queries refer to, each once."""
    return list({q.reference.image_id: None for q in queries if isinstance(q.reference, GalleryImage)})


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


def _gallery_id(query: Query) -> str | None:
    return query.reference.image_id if isinstance(query.reference, GalleryImage) else None


def _excluded_sha256(query: Query) -> str | None:
    if query.reference is None or isinstance(query.reference, GalleryImage):
        return None
    return hash_image(ImageRecord("reference", query.reference, payload={}, source=None)).sha256
