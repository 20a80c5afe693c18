"""``qdrant-cir calibrate``: learn from queries when re-ranking may stop early."""

from __future__ import annotations

import json
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
    open_bundle,
    provider_named,
    with_options,
)
from qdrant_cir.errors import InputError

__all__ = ["calibrate"]

_SHOWN_LIMIT = 10


@with_options({"store": StoreOptions})
def calibrate(
    *,
    collection: CollectionOption,
    vector: VectorOption = None,
    queries: Annotated[
        Path, typer.Option("--queries", help="JSONL with reference and modification_text, as for `evaluate own`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The calibration file to write.")],
    rerank_depth: Annotated[
        int, typer.Option("--rerank-depth", "-k", help="Re-rank depth that the calibration covers.")
    ] = 100,
    step: Annotated[int, typer.Option("--step", help="Candidates between two decisions.")] = 10,
    exclude_reference: Annotated[
        bool, typer.Option("--exclude-reference", help="Set it as in the searches that will use the calibration.")
    ] = False,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Learn from queries when re-ranking may stop early, for `search --confidence`.

    Every query is re-ranked once to the full depth; right answers are not needed. Use at least a hundred queries like
    those that you expect, and none that you evaluate with.
    """
    from qdrant_cir.cli.held_out import scores_of_queries
    from qdrant_cir.gallery import Gallery
    from qdrant_cir.model.compute import Compute
    from qdrant_cir.search.effort_calibration import calibrate_effort
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.storage.packaged import with_bundle

    for name, value in (("--rerank-depth", rerank_depth), ("--step", step)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out} cannot be written: expected a file in a folder that exists.")
    given = None if bundle is None else open_bundle(bundle)
    compute = Compute(provider_named(provider))
    with store.place.opened(creates=False) as opened, printing.show_counts("re-ranking queries") as show_count:
        gallery = with_bundle(
            given,
            lambda made: Gallery(
                Collection.find(opened, collection, vector=vector, bundle=made), made, compute=compute
            ),
        )
        scores = scores_of_queries(
            queries,
            gallery,
            rerank_depth=rerank_depth,
            exclude_reference=exclude_reference,
            progress=show_count,
        )
    found = calibrate_effort(scores, fingerprint=gallery.bundle.fingerprint, rerank_depth=rerank_depth, step=step)
    try:
        out.write_text(json.dumps(found.to_object(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error}.") from error
    if as_json:
        printing.print_json({"file": str(out), **found.to_object()})
        return
    printing.print_text(f"Wrote {out}, learnt from {found.queries} queries at a re-rank depth of {rerank_depth}.")
    shown = [bound for bound in found.bounds if bound.limit == min(_SHOWN_LIMIT, rerank_depth)]
    rows = [(f"{bound.confidence:g}", f"{bound.lead:.3f}") for bound in shown]
    printing.print_table(("confidence", "stops at a lead of"), rows, title=f"for {shown[0].limit} results")
