"""``qdrant-cir search``: one query from its options to what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import StoreOptions, with_options
from qdrant_cir.cli.query_options import QueryOptions

__all__ = ["search"]

LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", "-n", help="Results to show.")]
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


@with_options({"asked": QueryOptions, "store": StoreOptions})
def search(
    *,
    asked: QueryOptions,
    limit: LimitOption = 10,
    confidence: ConfidenceOption = None,
    calibration: CalibrationOption = None,
    time_budget: BudgetOption = None,
    min_match: MinMatchOption = None,
    store: StoreOptions,
) -> None:
    """Search with reference images, a text, or both.

    With both, the best matches of the composed query are re-ranked. Without a text the pictures themselves are
    searched; without a picture the text is composed with a blank one.
    """
    from qdrant_cir.cli.answering import answer, read_effort

    query = asked.query
    effort = read_effort(confidence, calibration, time_budget)
    result = answer(asked, store.place, limit=limit, effort=effort, min_match=min_match)
    if asked.as_json:
        names = [*map(str, asked.image or []), *(asked.image_id or [])]
        printing.print_json(printing.search_result_json(query, result, references=names))
    else:
        printing.print_result(result, grouped=asked.group_by is not None)
    if asked.save is not None:
        printing.print_note(f"The results are drawn in {asked.save.absolute()}")
