"""The re-ranker in int8 and float16, and stored tokens in every type, compared with the bundle as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import onnx

from benchmarks.machine import LoadMeter, alternate, describe_machine, median_ratio
from benchmarks.quality.answers import score_with
from benchmarks.quality.bench import RERANK_DEPTH, Bench
from benchmarks.quality.changed_graphs import open_changed, with_codec
from benchmarks.quality.figures import (
    R1,
    R10,
    Compared,
    compare,
    gain_in_words,
    in_words,
    interval_json,
)
from benchmarks.quality.sections import Section
from onnx_export.bundle.calibration import Inputs, calibration_pictures, graph_inputs
from onnx_export.bundle.precisions import CONVERSIONS, Conversion
from qdrant_cir.model.bundle import TokenCodec
from qdrant_cir.model.reranker import Reranker
from qdrant_cir.tokens.codec import quantize
from qdrant_cir.types import Float32, Int64, JsonObject, StoredTokens

MOST_POINTS = 0.5
"""How far recall may be from the bundle's own."""

_CODECS: tuple[TokenCodec, ...] = ("int8", "float16", "float32")
_TIMED_QUERIES = 20


@dataclass(frozen=True, slots=True)
class Form:
    """The re-ranker in one arithmetic, and how it is given tokens.

    Attributes:
        name: of the file that keeps its scores.
        title: of its row.
        reranker: that scores.
        candidates: gallery rows [K] to their tokens.
    """

    name: str
    title: str
    reranker: Reranker
    candidates: Callable[[Int64], StoredTokens]


def precision_sections(bench: Bench) -> list[Section]:
    """Re-rank every query's candidates in each form, then time the forms in turn on a few queries."""
    order = bench.order[: bench.settings.form_queries, :RERANK_DEPTH]
    codec = bench.bundle.manifest.token_codec
    own = Form("own", f"the bundle: float32 arithmetic, {codec} tokens", bench.reranker, bench.gallery.candidates)
    forms = _forms(bench)
    compared = {form.name: recall_of(bench, form, order, "precision") for form in forms}
    load = LoadMeter()
    ratios = time_ratios(bench, [own, *forms], order)
    first, tenth = compared[forms[0].name][R1], compared[forms[0].name][R10]
    rows: list[tuple[str, ...]] = [(own.title, in_words(first.before), "", in_words(tenth.before), "", "1.00", "")]
    rows += [form_row(form, compared[form.name], ratios[form.name]) for form in forms]
    return [
        Section(
            name="precision",
            title=f"Narrower numbers, K = {order.shape[1]}",
            command=bench.settings.command_of("precision"),
            columns=(
                "re-ranker",
                "R@1",
                "difference, paired",
                "R@10",
                "difference, paired",
                "time",
                f"within {MOST_POINTS} points",
            ),
            rows=tuple(rows),
            notes=(
                f"The first {len(order)} queries. "
                "Time is that per candidate as a share of the bundle's, median over "
                f"{min(_TIMED_QUERIES, len(bench.texts))} queries in turn; below 1 is faster. "
                f"{describe_machine(bench.settings.threads, packages=('onnxruntime', 'numpy'))}; other processes took "
                f"{load.cores_taken():.1f} cores meanwhile. float16 on a processor without such arithmetic is float32 "
                "products of numbers rounded to it: its recall counts, its time does not. The graphs are those that "
                "`python -m onnx_export add-precision` writes.",
            ),
            data={form.name: form_data(compared[form.name], ratios[form.name]) for form in forms},
        )
    ]


def form_row(form: Form, compared: tuple[Compared, ...], ratio: float) -> tuple[str, ...]:
    """Return the cells of one form."""
    first, tenth = compared[R1], compared[R10]
    holds = max(abs(first.gain.value), abs(tenth.gain.value)) <= MOST_POINTS
    return (
        form.title,
        in_words(first.after),
        gain_in_words(first.gain),
        in_words(tenth.after),
        gain_in_words(tenth.gain),
        f"{ratio:.2f}",
        "yes" if holds else "NO",
    )


def form_data(compared: tuple[Compared, ...], ratio: float) -> JsonObject:
    """Return the same as JSON."""
    recall: JsonObject = {
        compared[column].name: {
            "value": interval_json(compared[column].after),
            "difference": interval_json(compared[column].gain),
        }
        for column in (R1, R10)
    }
    return {**recall, "time_ratio": ratio}


def _forms(bench: Bench) -> list[Form]:
    """The re-ranker in every other precision, and in its own on the other codecs of stored tokens."""
    bundle, threads, graphs = bench.bundle, bench.settings.threads, bench.kept / "graphs"
    codec, stored = bundle.manifest.token_codec, bench.gallery.candidates
    inputs = graph_inputs(bundle, "reranker", calibration_pictures(None))
    forms = [
        Form(
            precision,
            f"{precision} arithmetic",
            open_changed(bundle, partial(_converted, convert, inputs), graphs / f"{precision}.onnx", threads=threads),
            stored,
        )
        for precision, convert in CONVERSIONS.items()
        if precision != "int8" or codec == "int8"
    ]
    for other in _CODECS:
        if other != codec:
            reranker = open_changed(
                bundle,
                lambda model, other=other: with_codec(model, other),  # type: ignore[misc]
                graphs / f"tokens_{other}.onnx",
                threads=threads,
            )
            forms.append(Form(f"tokens_{other}", f"{other} tokens", reranker, _in_codec(bench.gallery.tokens, other)))
    return forms


def _converted(convert: Conversion, inputs: Sequence[Inputs], model: onnx.ModelProto) -> onnx.ModelProto:
    return convert(model, inputs)


def _in_codec(tokens: Float32, codec: TokenCodec) -> Callable[[Int64], StoredTokens]:
    return lambda rows: quantize(tokens[rows], codec)


def recall_of(bench: Bench, form: Form, order: Int64, folder: str) -> tuple[Compared, ...]:
    """Re-rank every query's candidates [Q, K] in a form, against the bundle's own; scores are kept in a folder."""
    kept = bench.kept / folder / f"{form.name}.npy"
    count = len(order)
    queries = bench.composed[:count]
    scores = score_with(lambda query, rows: form.reranker.score(query, form.candidates(rows)), queries, order, kept)
    return compare(bench.reranked[:count], bench.rescored(scores), bench.clusters[:count])


def time_ratios(bench: Bench, forms: list[Form], order: Int64) -> dict[str, float]:
    """Time of each form as a share of the first one's, on tokens that are read before."""
    seconds: dict[str, list[float]] = {form.name: [] for form in forms}
    for place in range(min(_TIMED_QUERIES, len(order))):
        query = bench.composed[place]
        runs = {form.name: partial(form.reranker.score, query, form.candidates(order[place])) for form in forms}
        for name, taken in alternate(runs, rounds=2).items():
            seconds[name].append(min(taken))
    own = seconds[forms[0].name]
    return {name: median_ratio(taken, own) for name, taken in seconds.items()}
