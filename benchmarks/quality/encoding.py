"""A gallery encoded in int8: recall of both stages, with references encoded exactly and in int8."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.answers import compose_all, final_rankings, retrieve, score_with
from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.figures import (
    R1,
    R10,
    Compared,
    compare,
    gain_in_words,
    in_words,
    interval_json,
)
from benchmarks.quality.gallery import EncodedGallery, encode_gallery
from benchmarks.quality.precision import MOST_POINTS
from benchmarks.quality.sections import Section
from onnx_export.bundle.precisions import add_precision
from qdrant_cir.model.bundle import Bundle, GraphName, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.types import Composition, JsonObject

_STAGES = ("stage one", "both stages")


def encoding_sections(bench: Bench) -> list[Section]:
    """Encode the gallery in int8, then answer the first queries over it with the exact composer and re-ranker."""
    count = min(bench.settings.form_queries, len(bench.texts))
    gallery, kept = _int8_gallery(bench, count)
    queries = {
        "int8, references exact": bench.composed[:count],
        "int8, references too": compose_all(bench.composer, gallery.reference_tokens, bench.texts[:count]),
    }
    rows: list[tuple[str, ...]] = []
    data: JsonObject = {}
    for number, (title, composed) in enumerate(queries.items()):
        compared = _compared(bench, gallery, composed, kept / f"scores_{number}.npy")
        for stage, found in zip(_STAGES, compared, strict=True):
            rows.append(_row(title, stage, found))
            data[f"{title}, {stage}"] = {
                found[column].name: {
                    "before": interval_json(found[column].before),
                    "value": interval_json(found[column].after),
                    "difference": interval_json(found[column].gain),
                }
                for column in (R1, R10)
            }
    depth = min(RERANK_DEPTH, len(gallery.vectors))
    return [
        Section(
            name="encoding",
            title=f"Gallery encoded in int8, K = {depth}",
            command=bench.settings.command_of("encoding"),
            columns=(
                "gallery",
                "ranked by",
                "R@1 of float32",
                "R@1",
                "difference, paired",
                "R@10 of float32",
                "R@10",
                "difference, paired",
                f"within {MOST_POINTS} points",
            ),
            rows=tuple(rows),
            notes=(
                f"The first {count} queries. The encoder is the one that `python -m onnx_export add-precision "
                "--graph image_encoder` writes; composer and re-ranker are exact. A reference given as a picture is "
                "encoded exactly; one named by its place in the collection is read as it was indexed.",
            ),
            data=data,
        )
    ]


def _int8_gallery(bench: Bench, count: int) -> tuple[EncodedGallery, Path]:
    """Encode every picture, and the references of ``count`` queries; return the folder that keeps them, too.

    The bundle's fingerprint does not cover its variants, so what is kept is named after the graph's own digest.
    """
    bundle = _with_int8_encoder(bench.bundle, bench.kept / "int8_encoder")
    digests = [
        digest
        for name in _encoders_of(bundle)
        for _, digest in sorted(bundle.manifest.graphs[name].variants["int8"].files.items())
    ]
    kept = bench.kept / "encoding" / "_".join(digest[:8] for digest in digests)
    encoder = ImageEncoder.open(bundle, Compute("cpu", bench.settings.threads, precision="int8"))
    references = bench.references[:count]
    return encode_gallery(bundle, encoder, bench.pictures, references, kept), kept


def _with_int8_encoder(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle and add its encoders in int8; done in every run, as the conversion may have changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle.folder, folder)
    for name in _encoders_of(bundle):
        add_precision(folder, "int8", name)
    return load_bundle(folder)


def _encoders_of(bundle: Bundle) -> tuple[GraphName, ...]:
    return ("image_encoder", "candidate_encoder") if bundle.has_candidate_encoder else ("image_encoder",)


def _compared(
    bench: Bench, gallery: EncodedGallery, queries: Sequence[Composition], kept: Path
) -> tuple[tuple[Compared, ...], ...]:
    """Compare stage one, then both stages, with those of the gallery that is encoded exactly."""
    count, depth = len(queries), min(RERANK_DEPTH, len(gallery.vectors))
    found = retrieve(queries, gallery.vectors, depth=depth)
    scores = score_with(gallery.scorer(bench.reranker), queries, found.order, kept)
    before = (bench.retrieved[:count], bench.reranked[:count])
    after = [
        bench.score(final_rankings(bench.image_ids, found.order, found.cosines, of_stage))
        for of_stage in (scores[:, :0], scores)
    ]
    return tuple(compare(*tables, bench.clusters[:count]) for tables in zip(before, after, strict=True))


def _row(title: str, stage: str, compared: tuple[Compared, ...]) -> tuple[str, ...]:
    first, tenth = compared[R1], compared[R10]
    holds = max(abs(first.gain.value), abs(tenth.gain.value)) <= MOST_POINTS
    return (
        title,
        stage,
        in_words(first.before),
        in_words(first.after),
        gain_in_words(first.gain),
        in_words(tenth.before),
        in_words(tenth.after),
        gain_in_words(tenth.gain),
        "yes" if holds else "NO",
    )
