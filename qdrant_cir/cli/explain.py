"""``qdrant-cir explain``: why one result of a query stands where it stands."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import StoreOptions, with_options
from qdrant_cir.cli.query_options import QueryOptions

__all__ = ["explain"]

CandidateArgument: TypeAlias = Annotated[
    str, typer.Argument(help="The result to explain, by its id, or its point's id if the collection is attached.")
]


@with_options({"asked": QueryOptions, "store": StoreOptions})
def explain(candidate: CandidateArgument, *, asked: QueryOptions, store: StoreOptions) -> None:
    """Explain why a result of a search stands where it stands.

    Give the options of the search. Shown are the places that each word of the text gained, and the cells of the picture
    that carried the score; --save draws them.
    """
    from qdrant_cir.cli.answering import explained

    why = explained(asked, store.place, candidate)
    if asked.as_json:
        printing.print_json(why.to_object())
    else:
        printing.print_explanation(why)
    if asked.save is not None:
        printing.print_note(f"The explanation is drawn in {asked.save.absolute()}")
