"""``qdrant-cir evaluate``: one command per data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.evaluate_photos import photos
from qdrant_cir.cli.options import (
    BundleOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    StoreOptions,
    open_bundle,
    precision_named,
    provider_named,
    with_options,
)
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_cir.evaluation.datasets.benchmark import Benchmark
    from qdrant_cir.storage.stores.protocol import Store

__all__ = ["evaluation_app"]

_DEFAULT_OUT = Path("qdrant_cir_evaluation")
_SECONDS_BETWEEN_LINES = 5.0

evaluation_app = typer.Typer(
    help="Measure a model on FashionIQ, CIRR, CIRCO, a drawn catalogue, or your own queries.",
    no_args_is_help=True,
)
evaluation_app.command()(photos)

_RootOption: TypeAlias = Annotated[
    Path, typer.Option("--root", help="Folder of the data set, laid out as published.", show_default=False)
]
_ImagesOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the pictures, if it is not in the root.", show_default=False),
]
_ExcludeOption: TypeAlias = Annotated[
    bool, typer.Option("--exclude-reference", help="Leave the query's reference out of its results.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of every ``evaluate`` command, a field each."""

    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls", help="Also run the queries without their text, and without their picture."
        ),
    ] = True
    rerank_depth: Annotated[
        int, typer.Option("--rerank-depth", "-k", help="Candidates to re-rank; 0 is stage one alone.")
    ] = 50
    bundle: BundleOption = None
    provider: ProviderOption = "auto"
    precision: PrecisionOption = "float32"
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the gallery, the run and the report; run again to complete it. By default "
            f"{_DEFAULT_OUT}/NAME-SPLIT-MODEL.",
            show_default=False,
        ),
    ] = None
    as_json: JsonOption = False


class _FashionIqSplit(StrEnum):
    ORIGINAL = "original"
    VAL = "val"


class _CirrSplit(StrEnum):
    VAL = "val"
    TEST1 = "test1"


class _CircoSplit(StrEnum):
    VAL = "val"
    TEST = "test"


@evaluation_app.command()
@with_options({"run": RunOptions}, defaults={"rerank_depth": 100})
def fashioniq(
    *,
    root: _RootOption,
    images: _ImagesOption = None,
    split: Annotated[
        _FashionIqSplit,
        typer.Option(
            "--split",
            help="original: whole galleries, joined captions. val: galleries of the queries' own images, "
            "a query per caption; the published code also leaves the reference out.",
        ),
    ] = _FashionIqSplit.ORIGINAL,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            help="One category; may be repeated. By default all that the folder has captions of.",
            show_default=False,
        ),
    ] = None,
    exclude_reference: _ExcludeOption = False,
    run: RunOptions,
) -> None:
    """Measure on FashionIQ's validation queries: R@10 and R@50 per category and their mean."""
    from qdrant_cir.evaluation.datasets.fashioniq import read_fashioniq

    benchmark = read_fashioniq(
        root,
        split=split.value,
        images=images,
        categories=tuple(category) if category else None,
        excludes_reference=exclude_reference,
    )
    _run(benchmark, run)


@evaluation_app.command()
@with_options({"run": RunOptions})
def cirr(
    *,
    root: _RootOption,
    images: _ImagesOption = None,
    split: Annotated[
        _CirrSplit, typer.Option("--split", help="test1 has no published answers: submission files.")
    ] = _CirrSplit.VAL,
    run: RunOptions,
) -> None:
    """Measure on CIRR: R@1, 5, 10, 50 and Rsubset@1, 2, 3, and the two files of its evaluation server."""
    from qdrant_cir.evaluation.datasets.cirr import read_cirr

    _run(read_cirr(root, split=split.value, images=images), run)


@evaluation_app.command()
@with_options({"run": RunOptions})
def circo(
    *,
    root: _RootOption,
    images: _ImagesOption = None,
    split: Annotated[
        _CircoSplit, typer.Option("--split", help="test has no published answers: submission file.")
    ] = _CircoSplit.VAL,
    run: RunOptions,
) -> None:
    """Measure on CIRCO: mAP and recall at 5, 10, 25, 50, per semantic aspect, and the file of its evaluation server."""
    from qdrant_cir.evaluation.datasets.circo import read_circo

    _run(read_circo(root, split=split.value, images=images), run)


@evaluation_app.command()
@with_options({"run": RunOptions})
def catalog(
    *,
    root: _RootOption,
    exclude_reference: _ExcludeOption = False,
    run: RunOptions,
) -> None:
    """Measure on a drawn catalogue, as `qdrant-cir catalog` writes it, per kind of edit."""
    from qdrant_cir.evaluation.datasets.drawn import read_drawn

    # measured on what it is for, where no other bundle is named
    run = replace(run, bundle=run.bundle or Path("drawn"))
    _run(read_drawn(root, excludes_reference=exclude_reference), run)


@evaluation_app.command()
@with_options({"store": StoreOptions, "run": RunOptions})
def own(
    *,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder of the pictures, with a gallery manifest or without.", show_default=False),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            help="JSONL of {reference, modification_text, targets}; queries.jsonl in the root by default.",
            show_default=False,
        ),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Search this collection instead of a folder.", show_default=False),
    ] = None,
    exclude_reference: _ExcludeOption = False,
    store: StoreOptions,
    run: RunOptions,
) -> None:
    """Measure on your own queries, over a folder of pictures or a collection that exists."""
    from qdrant_cir.evaluation.datasets.custom import QUERY_FILE, read_custom

    if (root is None) == (collection is None):
        raise InputError("Give either --root with the pictures, or --collection with what is indexed.")
    if queries is None and root is None:
        raise InputError("Give --queries: a collection has no folder in which to look for them.")
    benchmark = read_custom(
        queries or cast("Path", root) / QUERY_FILE, gallery=root, excludes_reference=exclude_reference
    )
    opened = None if collection is None else store.place.opened(creates=False)
    _run(benchmark, run, store=opened, collection=collection)


def _run(
    benchmark: Benchmark,
    run: RunOptions,
    *,
    store: AbstractContextManager[Store] | None = None,
    collection: str | None = None,
) -> None:
    """Evaluate and print; galleries are kept in the output folder unless a store is given."""
    from qdrant_cir.evaluation.evaluate import EvaluationSettings, evaluate
    from qdrant_cir.evaluation.report.files import report_json
    from qdrant_cir.evaluation.report.markdown import write_markdown
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.storage.packaged import with_bundle
    from qdrant_cir.storage.stores import EdgeStore

    settings = EvaluationSettings(
        rerank_depth=run.rerank_depth,
        provider=provider_named(run.provider),
        precision=precision_named(run.precision),
        collection=collection,
        runs_controls=run.controls,
        on_queries=_query_progress(),
    )
    with ExitStack() as opening:
        standing = None if store is None else opening.enter_context(store)
        if run.bundle is None and standing is not None and collection is not None:
            name = collection
            model = with_bundle(None, lambda made: (Collection.find(standing, name, bundle=made), made)[1])
        else:
            model = open_bundle(run.bundle)
        folder = run.out or _DEFAULT_OUT / f"{benchmark.name}-{benchmark.split}-{model.fingerprint[:12]}"
        opened = standing or opening.enter_context(EdgeStore(folder / "store"))
        on_images = opening.enter_context(printing.show_progress("indexing"))
        settings = replace(settings, on_images=on_images)
        evaluation = evaluate(benchmark, store=opened, bundle=model, out=folder, settings=settings)
    if run.as_json:
        printing.print_json(report_json(evaluation.report))
    else:
        printing.print_text(write_markdown(evaluation.report))
    printing.print_note(f"Written: {', '.join(str(path) for path in evaluation.files)}")


def _query_progress() -> Callable[[int, int], None]:
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            printing.print_note(f"searching: {done} of {total} queries")

    return show
