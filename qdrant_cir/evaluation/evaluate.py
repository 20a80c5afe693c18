"""An evaluation from data set to report: gallery, run and scores of one part after the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.benchmark import Benchmark, EvaluationPart
from qdrant_cir.evaluation.report.affected import find_affected
from qdrant_cir.evaluation.report.building import build_report
from qdrant_cir.evaluation.report.contents import EvaluationReport, RunDescription
from qdrant_cir.evaluation.report.files import write_report
from qdrant_cir.evaluation.report.part_result import PartResult, judge_part
from qdrant_cir.evaluation.runs.answering import complete_run, queries_sha256
from qdrant_cir.evaluation.runs.controls import run_controls
from qdrant_cir.evaluation.runs.galleries import PartGallery, index_gallery, open_gallery
from qdrant_cir.evaluation.runs.run_file import RunHeader
from qdrant_cir.indexing.report import IndexProgress
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import Compute, ExecutionProvider
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.retriever import Retriever
from qdrant_cir.search.query_model import QueryModel
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.protocol import Store
from qdrant_cir.types import Encoder, Precision

__all__ = ["Evaluation", "EvaluationSettings", "evaluate"]


_DEEPEST = 1_000_000


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How an evaluation is run.

    Attributes:
        rerank_depth: candidates that stage two scores; 0 for stage one alone. The paper takes 100 on
            FashionIQ and 50 on CIRR.
        provider: where the graphs run.
        precision: what the re-ranker computes in, where the bundle holds it.
        collection: name of the collection to search, for a benchmark that has no gallery.
        runs_controls: also run the queries without their text, and without their reference.
        on_images: called while a gallery is indexed.
        on_queries: called with answers and queries while a part is run.
    """

    rerank_depth: int
    provider: ExecutionProvider = "auto"
    precision: Precision = "float32"
    collection: str | None = None
    runs_controls: bool = True
    on_images: Callable[[IndexProgress], None] | None = None
    on_queries: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the depth. Raises InputError."""
        if not 0 <= self.rerank_depth <= _DEEPEST:
            raise InputError(f"rerank_depth is {self.rerank_depth}; it must be at least 0 and at most {_DEEPEST}.")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report of an evaluation, and the files that it wrote."""

    report: EvaluationReport
    files: tuple[Path, ...]


def evaluate(
    benchmark: Benchmark, *, store: Store, bundle: Bundle, out: Path, settings: EvaluationSettings
) -> Evaluation:
    """Evaluate a model on a benchmark, through the retriever that users search with.

    Images that are indexed and queries that are answered under the same settings are not computed again, so the same
    call completes one that was interrupted.

    Args:
        benchmark: from a reader.
        store: where galleries are kept, one collection per part; or where the collection to search is.
        bundle: the model.
        out: folder for runs and reports.
        settings: how to run.

    Raises:
        InputError: no collection for a benchmark without a gallery.
        EvaluationError: no image or no query is left to score, or a run file belongs to another run.
        CirError: as indexing and searching.
    """
    model = QueryModel(bundle, Compute(settings.provider, precision=settings.precision))
    encoder = ImageEncoder.open(bundle, Compute(settings.provider))
    results = []
    for part in benchmark.parts:
        collection, gallery = _gallery_of(benchmark, part, store, encoder, bundle, settings)
        retriever = Retriever(collection, model)
        results.append(_run_part(benchmark, part, gallery, retriever, out, settings, fingerprint=bundle.fingerprint))
    report = build_report(benchmark, results, _describe(bundle, settings, encoder.provider))
    return Evaluation(report, tuple(write_report(benchmark, results, report, out)))


def _run_part(
    benchmark: Benchmark,
    part: EvaluationPart,
    gallery: PartGallery,
    retriever: Retriever,
    out: Path,
    settings: EvaluationSettings,
    *,
    fingerprint: str,
) -> PartResult:
    """Run a part's queries, then score them; the run does not see the right answers."""
    affected = find_affected(part, benchmark.truth_of(part), gallery.present)
    cannot_run = {query.query_id for query in affected if not query.can_run}
    header = _header(benchmark, part, gallery, fingerprint, settings)
    precision = "" if settings.precision == "float32" else f"_{settings.precision}"
    records = complete_run(
        retriever,
        [query for query in part.queries if query.query_id not in cannot_run],
        path=out / "runs" / f"{benchmark.split}_{part.name}_{settings.rerank_depth}{precision}.jsonl",
        header=header,
        progress=settings.on_queries,
    )
    result = judge_part(
        benchmark,
        part,
        gallery=gallery,
        affected=affected,
        records=records,
        rerank_depth=settings.rerank_depth,
    )
    if not (settings.runs_controls and result.retrieved):
        return result
    controls = run_controls(
        retriever,
        part,
        benchmark.truth_of(part),
        result.retrieved.query_ids,
        metrics=[metric for metric in benchmark.metrics if metric.depth],
        folder=out / "runs",
        header=header,
        progress=settings.on_queries,
    )
    return replace(result, controls=controls)


def _gallery_of(
    benchmark: Benchmark,
    part: EvaluationPart,
    store: Store,
    encoder: Encoder,
    bundle: Bundle,
    settings: EvaluationSettings,
) -> tuple[Collection, PartGallery]:
    truth = benchmark.truth_of(part)
    if part.gallery is None:
        if settings.collection is None:
            raise InputError(f"{benchmark.name} has no gallery of its own; name the collection to search.")
        collection = Collection.open(store, settings.collection, bundle)
        return collection, _with_recall(open_gallery(part, truth, collection=collection), collection, settings)
    collection = Collection.create(store, f"{benchmark.name}_{benchmark.split}_{part.name}", bundle)
    gallery = index_gallery(
        part,
        part.gallery,
        truth,
        collection=collection,
        encoder=encoder,
        bundle=bundle,
        progress=settings.on_images,
    )
    return collection, _with_recall(gallery, collection, settings)


def _with_recall(gallery: PartGallery, collection: Collection, settings: EvaluationSettings) -> PartGallery:
    """Add what the index loses at the depth in use, unless a server's strict mode forbids exact searches."""
    if not settings.rerank_depth:
        return gallery
    try:
        return replace(gallery, index_recall=collection.index_recall(settings.rerank_depth))
    except InputError:
        return gallery


def _header(
    benchmark: Benchmark,
    part: EvaluationPart,
    gallery: PartGallery,
    fingerprint: str,
    settings: EvaluationSettings,
) -> RunHeader:
    return RunHeader(
        benchmark=benchmark.name,
        split=benchmark.split,
        part=part.name,
        bundle=fingerprint,
        limit=max(benchmark.depth, settings.rerank_depth),
        rerank_depth=settings.rerank_depth,
        excludes_reference=part.excludes_reference,
        queries=len(part.queries),
        queries_sha256=queries_sha256(part),
        gallery=gallery.size,
        gallery_sha256=gallery.sha256,
        precision=settings.precision,
    )


def _describe(bundle: Bundle, settings: EvaluationSettings, provider: str) -> RunDescription:
    from qdrant_cir import __version__

    return RunDescription(
        version=__version__,
        bundle_name=bundle.manifest.name,
        fingerprint=bundle.fingerprint,
        model_sizes=bundle.manifest.sizes,
        rerank_depth=settings.rerank_depth,
        precision=settings.precision,
        provider=provider,
        machine=f"{platform.machine()} with {os.cpu_count()} cores, {platform.system()}",
    )
