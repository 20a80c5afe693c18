"""``qdrant-cir calibrate-match``: learn to tell whether an answer is a match at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    CollectionOption,
    JsonOption,
    ProviderOption,
    StoreOptions,
    VectorOption,
    provider_named,
    with_options,
)
from qdrant_cir.errors import InputError

__all__ = ["calibrate_match"]

_EDITS = 200


@with_options({"store": StoreOptions})
def calibrate_match(
    *,
    collection: CollectionOption,
    vector: VectorOption = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            help="JSONL with reference, modification_text and targets, as for `evaluate own`; at least 50. Without it, "
            "queries are made by recolouring pictures of the gallery.",
            show_default=False,
        ),
    ] = None,
    edits: Annotated[
        int | None,
        typer.Option(
            "--edits", help=f"Pictures to recolour where there are no queries; {_EDITS} by default.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the recoloured pictures.")] = 0,
    rerank_depth: Annotated[
        int, typer.Option("--rerank-depth", "-k", help="Re-rank depth of the searches to come.")
    ] = 50,
    exclude_reference: Annotated[
        bool, typer.Option("--exclude-reference", help="Set it as in the searches to come; always set for --edits.")
    ] = False,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Learn how likely it is that the first place is what was asked for, and keep it with the gallery.

    Every query is answered twice: with its right answers in the gallery and without them. Searches then show the
    probability, and say "no good match" where it is low.
    """
    from qdrant_cir.cli.answering import opened_gallery, opener_of
    from qdrant_cir.evaluation.match_queries import examples_of_edits, examples_of_queries
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.search.match import METADATA_KEY, fit_match

    if queries is not None and edits is not None:
        raise InputError("Both --queries and --edits were given. Give queries with known answers, or none.")
    for name, value, least in (("--rerank-depth", rerank_depth, 1), ("--edits", edits, 1), ("--seed", seed, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}.")
    compute = Compute(provider_named(provider))
    with (
        opened_gallery(store.place, collection, vector, bundle, compute) as gallery,
        printing.show_counts("answering queries") as show_count,
    ):
        if queries is not None:
            examples = examples_of_queries(
                queries,
                gallery,
                rerank_depth=rerank_depth,
                exclude_reference=exclude_reference,
                progress=show_count,
            )
        else:
            examples = examples_of_edits(
                gallery,
                count=_EDITS if edits is None else edits,
                seed=seed,
                rerank_depth=rerank_depth,
                opener=opener_of(gallery),
                progress=show_count,
            )
        found = fit_match(examples, fingerprint=gallery.bundle.fingerprint, rerank_depth=rerank_depth)
        gallery.collection.update_metadata({METADATA_KEY: found.to_object()})
    if as_json:
        printing.print_json({"collection": collection, **found.to_object()})
        return
    printing.print_text(
        f"Learnt from {found.queries} queries and kept with {collection}. On queries left out in turn the "
        f"probability is off by {found.error:.3f} (expected calibration error).\n"
        f"Below {found.min_match:.2f} an answer is no good match. That marks {found.marked_without:.0%} of the answers "
        f"whose right one was taken out of the gallery, and {found.marked_with:.0%} of the others."
    )
