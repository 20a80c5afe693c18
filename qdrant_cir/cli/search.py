"""``qdrant-cir search``: one query from its options to what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    CollectionOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    StoreOptions,
    VectorOption,
    precision_named,
    provider_named,
    with_options,
)
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_cir.types import Query

__all__ = ["query_of", "search"]

ImageOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--image", "-i", help="Reference image, a file; may be repeated.", show_default=False),
]
ImageIdOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--image-id",
        help="Reference image that is in the collection, by its id, or its point's id if the collection is attached; "
        "may be repeated.",
        show_default=False,
    ),
]
WeightOption: TypeAlias = Annotated[
    list[float] | None,
    typer.Option(
        "--weight",
        "-w",
        help="How much a reference counts, once per reference, those of --image first; equal by default.",
        show_default=False,
    ),
]
TextOption: TypeAlias = Annotated[
    str, typer.Option("--text", "-t", help="What should be different.", show_default=False)
]
MustNotOption: TypeAlias = Annotated[
    str, typer.Option("--must-not", help="What the results must not show.", show_default=False)
]
MustNotWeightOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--must-not-weight", help="How much --must-not counts, 0 or more; 0.5 by default.", show_default=False
    ),
]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", "-n", help="Results to show.")]
DepthOption: TypeAlias = Annotated[
    int, typer.Option("--rerank-depth", "-k", help="Candidates to re-rank; 0 is stage one alone.")
]
ConfidenceOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="Stop early once this share of the top results is expected to match full re-ranking, e.g. 0.9.",
        show_default=False,
    ),
]
CalibrationOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration", help="File of `calibrate` for --confidence; the bundle's own by default.", show_default=False
    ),
]
BudgetOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--time-budget", help="Stop re-ranking after this many seconds.", show_default=False),
]
MinMatchOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--min-match",
        help="Report no good match where the first place is right with less than this probability, 0 for never; needs "
        "`calibrate-match`, which also finds the default.",
        show_default=False,
    ),
]
FilterOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help="FIELD OPERATOR VALUE with = != < <= > >=, as in 'color=red' or 'price<50'. "
        "A name with signs stands in double quotes. May be repeated; all must hold.",
        show_default=False,
    ),
]
GroupByOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Payload field, such as product_id: one result per value, its best image. --limit and --rerank-depth "
        "count groups then.",
        show_default=False,
    ),
]
GroupSizeOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--group-size", help="Images of a group to re-rank at most; 10 by default.", show_default=False),
]
ExactOption: TypeAlias = Annotated[
    bool,
    typer.Option("--exact", help="Let a Qdrant server compare with every vector instead of using its index."),
]
ExcludeOption: TypeAlias = Annotated[
    bool, typer.Option("--exclude-reference", help="Leave the reference itself out of the results.")
]
SaveOption: TypeAlias = Annotated[
    Path | None, typer.Option("--save", help="Draw the results into this picture file.", show_default=False)
]


@with_options({"store": StoreOptions})
def search(
    *,
    collection: CollectionOption,
    vector: VectorOption = None,
    image: ImageOption = None,
    image_id: ImageIdOption = None,
    weight: WeightOption = None,
    text: TextOption = "",
    must_not: MustNotOption = "",
    must_not_weight: MustNotWeightOption = None,
    limit: LimitOption = 10,
    rerank_depth: DepthOption = 50,
    group_by: GroupByOption = None,
    group_size: GroupSizeOption = None,
    exact: ExactOption = False,
    confidence: ConfidenceOption = None,
    calibration: CalibrationOption = None,
    time_budget: BudgetOption = None,
    min_match: MinMatchOption = None,
    filters: FilterOption = None,
    exclude_reference: ExcludeOption = False,
    save: SaveOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "float32",
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Search with reference images, a text, or both.

    With both, the best matches of the composed query are re-ranked. Without a text the pictures themselves are
    searched; without a picture the text is composed with a blank one.
    """
    from qdrant_cir.cli.answering import SearchRequest, answer, read_effort
    from qdrant_cir.cli.filters import parse_filters
    from qdrant_cir.model.compute import Compute

    query = query_of(image, image_id, weight, text, must_not, must_not_weight, group_by=group_by, group_size=group_size)
    effort = read_effort(confidence, calibration, time_budget)
    # an expression that cannot be read is refused before anything is opened
    parse_filters(filters or [])
    request = SearchRequest(
        query, limit, rerank_depth, filters or [], exclude_reference, effort, group_by, group_size, exact, min_match
    )
    result = answer(
        request,
        place=store.place,
        collection=collection,
        vector=vector,
        bundle=bundle,
        compute=Compute(provider_named(provider), precision=precision_named(precision)),
        save=save,
    )
    if as_json:
        names = [*map(str, image or []), *(image_id or [])]
        printing.print_json(printing.search_result_json(query, result, references=names))
    else:
        printing.print_result(result, grouped=group_by is not None)
    if save is not None:
        printing.print_note(f"The results are drawn in {save.absolute()}")


def query_of(
    image: list[Path] | None,
    image_id: list[str] | None,
    weight: list[float] | None,
    text: str,
    must_not: str,
    must_not_weight: float | None,
    *,
    group_by: str | None,
    group_size: int | None,
) -> Query:
    """Join the options that make a query. Raises InputError for one that was given without the one that it is for."""
    from qdrant_cir.types import GalleryImage, Query, Reference

    if must_not_weight is not None and not must_not:
        raise InputError("--must-not-weight was given without --must-not, which it is for. Give both, or neither.")
    if group_size is not None and group_by is None:
        raise InputError("--group-size was given without --group-by, which it is for. Give both, or neither.")
    references: list[Reference] = [*(image or []), *map(GalleryImage, image_id or [])]
    return Query(
        references or None, text, must_not, weight or None, 0.5 if must_not_weight is None else must_not_weight
    )
