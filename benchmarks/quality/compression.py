"""Compressed tokens: recall with fewer rows and dimensions, fitted on the gallery, against their bytes."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass

from benchmarks.machine import LoadMeter, describe_machine
from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.figures import R1, R10, Compared, in_words
from benchmarks.quality.precision import MOST_POINTS, Form, form_data, form_row, recall_of, time_ratios
from benchmarks.quality.progress import Progress
from benchmarks.quality.recall_plot import RecallPoint, draw_recalls
from benchmarks.quality.sections import Section
from onnx_export.bundle.fitted_codec import fit_codec
from onnx_export.bundle.precisions import add_precision
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import Bundle, load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import encode_tokens
from qdrant_cir.tokens.form import TokenForm
from qdrant_cir.types import Int64, Precision, StoredTokens

logger = logging.getLogger(__name__)

PICTURE = "compression.png"
FITTED_PICTURES = 300
SHARES = ((1, 1 / 2), (1 / 2, 1 / 2), (1 / 3, 1 / 2), (1 / 6, 5 / 16))
"""Rows and dimensions that are stored, as shares of all."""

INTEGER_SHARE = (1 / 3, 1 / 2)
"""The one that is measured with integer products too."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A compressed bundle and its gallery.

    Attributes:
        bundle: of ``fit_codec``.
        encoded: every picture's stored bytes.
    """

    bundle: Bundle
    encoded: list[bytes]

    def form(self, precision: Precision, threads: int) -> Form:
        """Return the re-ranker on these tokens, in one arithmetic."""
        sizes, tokens = self.bundle.manifest.sizes, TokenForm(self.bundle)
        title = f"{sizes.stored_rows} rows x {sizes.stored_dims} dimensions, {len(self.encoded[0]) / 1000:.1f} KB"
        return Form(
            name=f"{sizes.stored_rows}x{sizes.stored_dims}_{precision}",
            title=title if precision == "float32" else f"{title}, {precision} arithmetic",
            reranker=Reranker.open(self.bundle, Compute("cpu", threads, precision=precision)),
            candidates=lambda rows: self._decoded(tokens, rows),
        )

    def _decoded(self, tokens: TokenForm, rows: Int64) -> StoredTokens:
        return tokens.decode([self.encoded[row] for row in rows.tolist()])


def compression_sections(bench: Bench) -> list[Section]:
    """Fit each form on pictures of the gallery, re-rank every query's candidates with it, then time the forms."""
    order, sizes = bench.order[: bench.settings.form_queries, :RERANK_DEPTH], bench.bundle.manifest.sizes
    exact_bytes = len(encode_tokens(bench.gallery.tokens[0], sizes.token_codec))
    title = f"all {sizes.token_rows} x {sizes.token_dims}, {exact_bytes / 1000:.1f} KB"
    own = Form("own", title, bench.reranker, bench.gallery.candidates)
    forms, sizes_in_bytes = [], [exact_bytes]
    for share in SHARES:
        made = _compressed(bench, *share)
        precisions: tuple[Precision, ...] = ("float32", "int8") if share == INTEGER_SHARE else ("float32",)
        for precision in precisions:
            forms.append(made.form(precision, bench.settings.threads))
            sizes_in_bytes.append(len(made.encoded[0]))
    compared = {form.name: recall_of(bench, form, order, "compression") for form in forms}
    load = LoadMeter()
    ratios = time_ratios(bench, [own, *forms], order)
    first, tenth = compared[forms[0].name][R1], compared[forms[0].name][R10]
    rows: list[tuple[str, ...]] = [(own.title, in_words(first.before), "", in_words(tenth.before), "", "1.00", "")]
    rows += [form_row(form, compared[form.name], ratios[form.name]) for form in forms]
    _draw(bench, forms, sizes_in_bytes, [compared[form.name] for form in forms])
    return [
        Section(
            name="compression",
            title=f"Compressed tokens, K = {order.shape[1]}",
            command=bench.settings.command_of("compression"),
            columns=(
                "stored of a picture",
                "R@1",
                "difference, paired",
                "R@10",
                "difference, paired",
                "time",
                f"within {MOST_POINTS} points",
            ),
            rows=tuple(rows),
            notes=(
                f"`python -m onnx_export fit-codec` on {min(FITTED_PICTURES, len(bench.pictures))} pictures "
                f"of the gallery, without their queries; the first {len(order)} queries. References are read as the "
                "encoder gives them, not compressed. Time is that per candidate as a share of the bundle's, median "
                f"over some queries in turn. "
                f"{describe_machine(bench.settings.threads, packages=('onnxruntime', 'numpy'))}; other processes took "
                f"{load.cores_taken():.1f} cores meanwhile.",
            ),
            picture=PICTURE,
            data={
                form.name: {"bytes": size, **form_data(compared[form.name], ratios[form.name])}
                for form, size in zip(forms, sizes_in_bytes[1:], strict=True)
            },
        )
    ]


def _compressed(bench: Bench, rows_share: float, dims_share: float) -> Compressed:
    """Fit a form, or open what was fitted before, and compress the gallery."""
    sizes, pictures = bench.bundle.manifest.sizes, bench.pictures
    rows, dims = max(3, round(sizes.token_rows * rows_share)), max(1, round(sizes.token_dims * dims_share))
    folder = bench.kept / "compression" / f"{rows}x{dims}"
    if not folder.exists():
        made = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(made, ignore_errors=True)
        chosen = pictures[:: max(1, len(pictures) // FITTED_PICTURES)][:FITTED_PICTURES]
        records = [ImageRecord(path.stem, path, payload={}, source=None) for path in chosen]
        fit = fit_codec(bench.bundle.folder, records, made, rows=rows, dims=dims)
        if bench.bundle.manifest.token_codec == "int8":
            add_precision(made, "int8")
        logger.info("%d x %d: %.1f %% lost", rows, dims, 100 * fit.lost)
        made.rename(folder)
    bundle = load_bundle(folder)
    form, progress, encoded = TokenForm(bundle), Progress(f"compressing to {rows} x {dims}", len(pictures)), []
    for number, tokens in enumerate(bench.gallery.tokens, start=1):
        encoded.append(form.encode(tokens))
        progress.reaches(number)
    return Compressed(bundle, encoded)


def _draw(bench: Bench, forms: list[Form], sizes: list[int], compared: list[tuple[Compared, ...]]) -> None:
    points = [RecallPoint("all", compared[0][R1].before, compared[0][R10].before, sizes[0] / 1000)]
    points += [
        RecallPoint(form.name.removesuffix("_float32"), found[R1].after, found[R10].after, size / 1000)
        for form, found, size in zip(forms, compared, sizes[1:], strict=True)
        if form.name.endswith("_float32")
    ]
    path = bench.settings.out / "images" / PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    title = "Recall against what is stored of a picture (rows x dimensions)"
    draw_recalls(sorted(points, key=lambda point: point.cost), title=title, cost="KB per picture").save(path)
