"""``qdrant-cir search``: one query from its options to what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    ApiKeyOption,
    BundleOption,
    CollectionOption,
    JsonOption,
    PathOption,
    PrecisionOption,
    ProviderOption,
    UrlOption,
    place_of_store,
    precision_named,
    provider_named,
)
from qdrant_cir.errors import InputError

__all__ = ["search"]

ImageOption: TypeAlias = Annotated[
    Path | None, typer.Option("--image", "-i", help="Reference image, a file.", show_default=False)
]
ImageIdOption: TypeAlias = Annotated[
    str | None, typer.Option("--image-id", help="Reference image that is in the collection.", show_default=False)
]
TextOption: TypeAlias = Annotated[
    str, typer.Option("--text", "-t", help="What should be different.", show_default=False)
]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", "-n", help="Results to show.")]
DepthOption: TypeAlias = Annotated[
    int, typer.Option("--rerank-depth", "-k", help="Candidates to re-rank; 0 is stage one alone.")
]
ConfidenceOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="Re-rank only until this share of the results is as from all candidates, on average: 0.9 for instance.",
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
    typer.Option("--time-budget", help="Seconds after which re-ranking ends where it is.", show_default=False),
]
FilterOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help="FIELD OPERATOR VALUE with = != < <= > >=, as in 'color=red' or 'price<50'. "
        "Given several times, all must hold.",
        show_default=False,
    ),
]
ExcludeOption: TypeAlias = Annotated[
    bool, typer.Option("--exclude-reference", help="Leave the reference itself out of the results.")
]
SaveOption: TypeAlias = Annotated[
    Path | None, typer.Option("--save", help="Draw the results into this picture file.", show_default=False)
]


def search(
    context: typer.Context,
    *,
    collection: CollectionOption,
    image: ImageOption = None,
    image_id: ImageIdOption = None,
    text: TextOption = "",
    limit: LimitOption = 10,
    rerank_depth: DepthOption = 50,
    confidence: ConfidenceOption = None,
    calibration: CalibrationOption = None,
    time_budget: BudgetOption = None,
    filters: FilterOption = None,
    exclude_reference: ExcludeOption = False,
    save: SaveOption = None,
    path: PathOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Search with a reference image, a text, or both.

    With both, the best matches of the composed query are re-ranked. Without a text the picture itself is
    searched; without a picture the text is composed with a blank one.
    """
    from qdrant_cir.cli.answering import SearchRequest, answer, read_effort
    from qdrant_cir.cli.filters import parse_filters
    from qdrant_cir.types import GalleryImage, Query

    if image is not None and image_id is not None:
        raise InputError("Both --image and --image-id were given. Give one reference.")
    query = Query(reference=GalleryImage(image_id) if image_id is not None else image, modification_text=text)
    effort = read_effort(confidence, calibration, time_budget)
    request = SearchRequest(query, limit, rerank_depth, parse_filters(filters or []), exclude_reference, effort)
    place = place_of_store(context, path=path, url=url, api_key=api_key)
    provider_name = provider_named(provider)
    result = answer(
        request,
        place=place,
        collection=collection,
        bundle=bundle,
        provider=provider_name,
        precision=precision_named(precision),
        save=save,
    )
    if as_json:
        reference = image_id if image is None else str(image)
        printing.print_json(printing.search_result_json(query, result, reference=reference))
    else:
        printing.print_result(result)
    if save is not None:
        printing.print_note(f"The results are drawn in {save.absolute()}")
