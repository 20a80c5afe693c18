"""What the parts of the benchmark share: the catalogue, the bundle's graphs, the encoded gallery, the answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.answers import Answers, compose_all, rerank, retrieve, score_all
from benchmarks.quality.catalogue import HeldOut
from benchmarks.quality.figures import score_rankings
from benchmarks.quality.gallery import EncodedGallery, encode_gallery
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.search.scoring import SharedReranker

RERANK_DEPTH = 100
MOST_CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says.

    Attributes:
        out: where everything is kept and written.
        catalogue: names the catalogue among what is kept.
        threads: of the graphs.
        command: repeats this benchmark, without ``--only``.
        ablation_queries: queries that the ablations re-rank, the first ones.
        form_queries: queries that other precisions and forms of tokens re-rank, the first ones.
        controls: folder of trained controls; None for none.
    """

    out: Path
    catalogue: str
    threads: int
    command: str
    ablation_queries: int = 400
    form_queries: int = 1000
    controls: Path | None = None

    def command_of(self, part: str) -> str:
        """Give the command that makes one part."""
        return f"{self.command} --only {part}"


class Bench:
    """One bundle over one held-out catalogue; what is dear is computed when it is first asked for."""

    def __init__(self, settings: Settings, bundle: Bundle, held_out: HeldOut) -> None:
        self.settings, self.bundle, self.held_out = settings, bundle, held_out
        self.kept = settings.out / "cache" / f"{settings.catalogue}_{bundle.fingerprint[:12]}"
        self.encoder = ImageEncoder.open(bundle, provider="cpu", threads=settings.threads)
        self.composer = Composer.open(bundle, provider="cpu", threads=settings.threads)
        self.reranker = Reranker.open(bundle, provider="cpu", threads=settings.threads)
        alone = Reranker.open(bundle, provider="cpu", threads=1)
        self.scorer = SharedReranker(alone, threads=settings.threads)  # as the retriever runs it

    @property
    def texts(self) -> list[str]:
        """The modification texts."""
        return [query.text for query in self.held_out.queries]

    @property
    def references(self) -> list[int]:
        """The references' rows."""
        return [query.reference for query in self.held_out.queries]

    @cached_property
    def gallery(self) -> EncodedGallery:
        """Every picture, encoded."""
        return encode_gallery(self.bundle, self.encoder, self.held_out.pictures, self.references, self.kept)

    @cached_property
    def answers(self) -> Answers:
        """Both stages over ``MOST_CANDIDATES`` candidates of every query."""
        queries = compose_all(self.composer, self.gallery.reference_tokens, self.texts)
        vectors = np.stack([query.vector for query in queries])
        order = retrieve(vectors, self.gallery.vectors, depth=min(MOST_CANDIDATES, len(self.gallery.vectors)))
        scores = score_all(self.scorer, queries, order, self.gallery, self.kept / "scores.npy")
        return Answers(queries, order, scores)

    @cached_property
    def retrieved(self) -> NDArray[np.float64]:
        """What stage one scores, as :func:`score_rankings` says."""
        return score_rankings(self.answers.order, self.held_out.queries)

    @cached_property
    def reranked(self) -> NDArray[np.float64]:
        """What both stages score at ``RERANK_DEPTH``."""
        return self.reranked_at(RERANK_DEPTH)

    def reranked_at(self, depth: int) -> NDArray[np.float64]:
        """Score the final order where the first ``depth`` candidates are re-ranked."""
        return score_rankings(rerank(self.answers.order, self.answers.scores, depth=depth), self.held_out.queries)
