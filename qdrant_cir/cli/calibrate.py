"""``qdrant-cir calibrate``: when re-ranking may end early, learnt from queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    ApiKeyOption,
    BundleOption,
    CollectionOption,
    JsonOption,
    PathOption,
    ProviderOption,
    UrlOption,
    open_bundle,
    place_of_store,
    provider_named,
)

__all__ = ["calibrate"]

_SHOWN_LIMIT = 10


def calibrate(
    context: typer.Context,
    *,
    collection: CollectionOption,
    queries: Annotated[
        Path, typer.Option("--queries", help="JSONL with reference and modification_text, as for `evaluate own`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The calibration file to write.")],
    rerank_depth: Annotated[int, typer.Option("--rerank-depth", "-k", help="The depth it is to hold up to.")] = 100,
    step: Annotated[int, typer.Option("--step", help="Candidates between two decisions.")] = 10,
    exclude_reference: Annotated[
        bool, typer.Option("--exclude-reference", help="As in the searches that will use it.")
    ] = False,
    path: PathOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Learn from queries when re-ranking may end early, for `search --confidence`.

    Every query is re-ranked to the full depth once; what is right is not asked. Take at least a hundred queries
    like those that will come, not those that results are judged by.
    """
    from qdrant_cir.cli.held_out import scores_of_queries
    from qdrant_cir.search.effort_calibration import calibrate_effort

    model = open_bundle(bundle)
    place = place_of_store(context, path=path, url=url, api_key=api_key)
    with place.opened(creates=False) as store, printing.show_counts("re-ranking queries") as show_count:
        scores = scores_of_queries(
            queries,
            store=store,
            collection=collection,
            bundle=model.folder,
            provider=provider_named(provider),
            rerank_depth=rerank_depth,
            exclude_reference=exclude_reference,
            progress=show_count,
        )
    found = calibrate_effort(scores, fingerprint=model.fingerprint, rerank_depth=rerank_depth, step=step)
    out.write_text(json.dumps(found.to_object(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        printing.print_json({"file": str(out), **found.to_object()})
        return
    typer.echo(f"{out} holds what {found.queries} queries say of re-ranking {rerank_depth} candidates.")
    shown = [bound for bound in found.bounds if bound.limit == min(_SHOWN_LIMIT, rerank_depth)]
    rows = [(f"{bound.confidence:g}", f"{bound.lead:.3f}") for bound in shown]
    printing.print_table(("confidence", "ends at a lead of"), rows, title=f"for {shown[0].limit} results")
