"""What the sections share: a run as arrays, its tables, the bundle's graphs and the encoded gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.answers import compose_all, final_rankings
from benchmarks.quality.gallery import EncodedGallery, encode_gallery
from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.drawn import read_drawn
from qdrant_cir.evaluation.metrics import Answer
from qdrant_cir.evaluation.report.bootstrap import number_clusters
from qdrant_cir.evaluation.runs.answering import queries_sha256
from qdrant_cir.evaluation.runs.rankings import QueryRecord, check_query_ids
from qdrant_cir.evaluation.runs.run_file import read_run
from qdrant_cir.evaluation.runs.scoring import score_answers
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.composer import Composer
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.types import Composition, Float32, GalleryImage

RERANK_DEPTH = 100
"""Candidates that the tables re-rank; the run holds 200."""

_RUN = "200"


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the command line.

    Attributes:
        out: where everything is kept and written.
        threads: of the graphs.
        command: repeats this benchmark, without ``--only``.
        ablation_queries: queries that the ablations re-rank, the first ones.
        form_queries: queries that other precisions and forms of tokens re-rank, the first ones.
        controls: folder of trained controls; None for none.
    """

    out: Path
    threads: int
    command: str
    ablation_queries: int = 400
    form_queries: int = 1000
    controls: Path | None = None

    def command_of(self, part: str) -> str:
        """Return the command that makes one part."""
        return f"{self.command} --only {part}"


class Bench:
    """A run over a drawn catalogue; costly things are computed when they are first asked for.

    Attributes:
        queries: Q, in the catalogue's order.
        image_ids: P, in the gallery's order, which is that of the ids; arrays name images by their row in it.
        order: int64 [Q, n], rows of stage one's ranking.
        cosines: float32 [Q, n], stage one's scores in that order.
        scores: float32 [Q, n], the re-ranker's in that order.
        clusters: int64 [Q], equal for queries of one reference.
    """

    def __init__(self, settings: Settings, bundle: Bundle, *, catalog: Path, run: Path) -> None:
        self.settings, self.bundle, self._run = settings, bundle, run
        benchmark = read_drawn(catalog)
        (self._part,) = benchmark.parts
        self._truth, self._metrics = benchmark.truth_of(self._part), benchmark.metrics
        self.queries = self._part.queries
        self.image_ids = tuple(record.image_id for record in self._part.gallery or ())
        self.kept = settings.out / "cache" / f"{queries_sha256(self._part)[:12]}_{bundle.fingerprint[:12]}"
        rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        self.references = [rows[q.reference.image_id] for q in self.queries if isinstance(q.reference, GalleryImage)]
        self.clusters = number_clusters(self.references)
        records = self._read(_RUN)
        ranked = [record.gallery.retrieved_order() for record in records]
        self.order = np.array([[rows[image_id] for image_id in ranking] for ranking in ranked], dtype=np.int64)
        cosines = [{image.image_id: image.score for image in record.gallery.retrieved} for record in records]
        scores = [{image.image_id: image.score for image in record.gallery.reranked} for record in records]
        self.cosines, self.scores = (
            np.array([[of[name] for name in names] for of, names in zip(found, ranked, strict=True)], dtype=np.float32)
            for found in (cosines, scores)
        )
        self.encoder = ImageEncoder.open(bundle, Compute("cpu", settings.threads))
        self.composer = Composer.open(bundle, Compute("cpu", settings.threads))
        self.reranker = Reranker.open(bundle, Compute("cpu", settings.threads))

    @property
    def pictures(self) -> list[Path]:
        """Files of the gallery."""
        return [Path(str(record.image)) for record in self._part.gallery or ()]

    @property
    def texts(self) -> list[str]:
        """The modification texts."""
        return [query.modification_text for query in self.queries]

    @cached_property
    def gallery(self) -> EncodedGallery:
        """Every picture, encoded."""
        return encode_gallery(self.bundle, self.encoder, self.pictures, self.references, self.kept)

    @cached_property
    def composed(self) -> tuple[Composition, ...]:
        """Every query, composed."""
        return compose_all(self.composer, self.gallery.reference_tokens, self.texts)

    @cached_property
    def retrieved(self) -> NDArray[np.float64]:
        """Scores of stage one, as :meth:`score` returns them."""
        return self.reranked_at(0)

    @cached_property
    def reranked(self) -> NDArray[np.float64]:
        """Scores of both stages at ``RERANK_DEPTH``."""
        return self.reranked_at(RERANK_DEPTH)

    def reranked_at(self, depth: int) -> NDArray[np.float64]:
        """Score the final order of a run that re-ranks the first ``depth`` candidates."""
        return self.rescored(self.scores[:, :depth])

    def rescored(self, scores: Float32) -> NDArray[np.float64]:
        """Score the final order where the first candidates [Q, K] have other scores; Q may be the first queries."""
        count = len(scores)
        return self.score(final_rankings(self.image_ids, self.order[:count], self.cosines[:count], scores))

    def score(self, rankings: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Score rankings of the first queries.

        Returns:
            float64 [Q, M] in percent, a column per metric of ``METRICS``.
        """
        names = [query.query_id for query in self.queries[: len(rankings)]]
        answers = {name: Answer(tuple(ranking)) for name, ranking in zip(names, rankings, strict=True)}
        return 100 * score_answers(answers, self._truth, self._metrics, names).values

    def control(self, name: str) -> NDArray[np.float64]:
        """Score a control of the evaluation, ``image-only`` or ``text-only``."""
        return self.score([record.gallery.retrieved_order() for record in self._read(name)])

    def _read(self, name: str) -> list[QueryRecord]:
        path = self._run / "runs" / f"queries_{self._part.name}_{name}.jsonl"
        header, records = read_run(path)
        if header.bundle != self.bundle.fingerprint:
            raise InputError(f"{path} is a run of the bundle {header.bundle[:12]}, not {self.bundle.fingerprint[:12]}.")
        if name == _RUN and header.queries_sha256 != queries_sha256(self._part):
            raise InputError(f"{path} is a run of other queries than those of the catalogue. Give the run's catalogue.")
        if name == _RUN and header.excludes_reference:
            raise InputError(f"{path} leaves the references out. Run `evaluate catalog` without --exclude-reference.")
        check_query_ids(records, [query.query_id for query in self.queries])
        return [records[query.query_id] for query in self.queries]
