"""``qdrant-cir explain``: why one result of a query stands where it stands."""

from __future__ import annotations

from typing import Annotated, TypeAlias

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
from qdrant_cir.cli.search import (
    DepthOption,
    ExactOption,
    ExcludeOption,
    FilterOption,
    GroupByOption,
    GroupSizeOption,
    ImageIdOption,
    ImageOption,
    MustNotOption,
    MustNotWeightOption,
    SaveOption,
    TextOption,
    WeightOption,
    query_of,
)

__all__ = ["explain"]

CandidateArgument: TypeAlias = Annotated[
    str, typer.Argument(help="The result to explain, by its id, or its point's id if the collection is attached.")
]


@with_options({"store": StoreOptions})
def explain(
    candidate: CandidateArgument,
    *,
    collection: CollectionOption,
    vector: VectorOption = None,
    image: ImageOption = None,
    image_id: ImageIdOption = None,
    weight: WeightOption = None,
    text: TextOption = "",
    must_not: MustNotOption = "",
    must_not_weight: MustNotWeightOption = None,
    rerank_depth: DepthOption = 50,
    group_by: GroupByOption = None,
    group_size: GroupSizeOption = None,
    exact: ExactOption = False,
    filters: FilterOption = None,
    exclude_reference: ExcludeOption = False,
    save: SaveOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "float32",
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Explain why a result of a search stands where it stands.

    Give the options of the search. Shown are the places that each word of the text gained, and the cells of the picture
    that carried the score; --save draws them.
    """
    from qdrant_cir.cli.answering import SearchRequest, explained
    from qdrant_cir.cli.filters import parse_filters
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.search.effort import EXACT

    query = query_of(image, image_id, weight, text, must_not, must_not_weight, group_by=group_by, group_size=group_size)
    parse_filters(filters or [])
    request = SearchRequest(
        query, 1, rerank_depth, filters or [], exclude_reference, EXACT, group_by, group_size, exact
    )
    why = explained(
        request,
        candidate,
        place=store.place,
        collection=collection,
        vector=vector,
        bundle=bundle,
        compute=Compute(provider_named(provider), precision=precision_named(precision)),
        save=save,
    )
    if as_json:
        printing.print_json(why.to_object())
    else:
        printing.print_explanation(why)
    if save is not None:
        printing.print_note(f"The explanation is drawn in {save.absolute()}")
