"""The options of a query, which `search` and `explain` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qdrant_cir.cli.options import (
    BundleOption,
    CollectionOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    VectorOption,
    precision_named,
    provider_named,
)
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.types import Query

__all__ = ["QueryOptions"]

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
DepthOption: TypeAlias = Annotated[
    int, typer.Option("--rerank-depth", "-k", help="Candidates to re-rank; 0 is stage one alone.")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """A query, where it is searched and how, a field for each option."""

    collection: CollectionOption
    vector: VectorOption = None
    image: ImageOption = None
    image_id: ImageIdOption = None
    weight: WeightOption = None
    text: TextOption = ""
    must_not: MustNotOption = ""
    must_not_weight: MustNotWeightOption = None
    rerank_depth: DepthOption = 50
    group_by: GroupByOption = None
    group_size: GroupSizeOption = None
    exact: ExactOption = False
    filters: FilterOption = None
    exclude_reference: ExcludeOption = False
    save: SaveOption = None
    bundle: BundleOption = None
    provider: ProviderOption = "auto"
    precision: PrecisionOption = "float32"
    as_json: JsonOption = False

    @property
    def compute(self) -> Compute:
        """What the graphs run on. Raises InputError for a name that is not known."""
        from qdrant_cir.model.compute import Compute

        return Compute(provider_named(self.provider), precision=precision_named(self.precision))

    @property
    def query(self) -> Query:
        """The query. Raises InputError for an option that was given without the one that it is for."""
        from qdrant_cir.types import GalleryImage, Query, Reference

        if self.must_not_weight is not None and not self.must_not:
            raise InputError("--must-not-weight was given without --must-not, which it is for. Give both, or neither.")
        if self.group_size is not None and self.group_by is None:
            raise InputError("--group-size was given without --group-by, which it is for. Give both, or neither.")
        references: list[Reference] = [*(self.image or []), *map(GalleryImage, self.image_id or [])]
        must_not_weight = 0.5 if self.must_not_weight is None else self.must_not_weight
        return Query(references or None, self.text, self.must_not, self.weight or None, must_not_weight)
