"""``qdrant-cir catalog``: drawn products on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import JsonOption
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_cir.drawn.near_misses import NearMissKind
    from qdrant_cir.types import JsonObject

__all__ = ["catalog_app"]

catalog_app = typer.Typer(
    help="Drawn products: pictures, manifest and queries with known answers.", no_args_is_help=True
)


@catalog_app.callback()
def catalog() -> None:
    """Keep ``build`` a command of its own, though it is the only one."""


@catalog_app.command("build")
def build_catalog(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures, manifest and queries.")],
    products: Annotated[int, typer.Option("--products", help="Size of the gallery.")] = 2000,
    queries: Annotated[int, typer.Option("--queries", help="Number of queries with known answers.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="The same seed and numbers give the same files.")] = 0,
    size: Annotated[int, typer.Option("--size", help="Side of the pictures in pixels.")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Draw a catalogue of products, with queries whose right answers are known.

    The folder is one for `evaluate catalog`, and in FashionIQ's layout, with a category per family of products, for
    `evaluate fashioniq`. Interrupted, the same command completes it.
    """
    from qdrant_cir.drawn.dataset import sample_catalog
    from qdrant_cir.drawn.files import write_catalog
    from qdrant_cir.drawn.near_misses import count_near_misses

    if seed < 0 or size < 1:
        raise InputError(f"seed is {seed} and size is {size}; seed must be at least 0 and size at least 1.")
    drawn = sample_catalog(seed, products=products, queries=queries)
    with printing.show_counts(f"drawing {products} products") as show_count:
        write_catalog(drawn, out, size=size, progress=show_count)
    counts = count_near_misses(drawn)
    if as_json:
        printing.print_json(
            {
                "folder": str(out),
                "products": len(drawn.items),
                "queries": len(drawn.queries),
                "seed": seed,
                "near_misses_per_query": _near_misses_json(counts),
            }
        )
        return
    typer.echo(f"{out} holds {len(drawn.items)} products (gallery.csv) and {len(drawn.queries)} queries.")
    typer.echo(_near_misses_text(counts))


def _near_misses_json(counts: Sequence[Counter[NearMissKind]]) -> JsonObject:
    """Give the least and the mean number of near-misses per query, and the mean by kind."""
    from qdrant_cir.drawn.near_misses import NEAR_MISS_KINDS

    totals = [count.total() for count in counts]
    by_kind: JsonObject = {
        kind: round(sum(count[kind] for count in counts) / len(counts), 2) for kind in NEAR_MISS_KINDS
    }
    return {"least": min(totals), "mean": round(sum(totals) / len(totals), 2), "mean_by_kind": by_kind}


def _near_misses_text(counts: Sequence[Counter[NearMissKind]]) -> str:
    from qdrant_cir.drawn.near_misses import NEAR_MISS_KINDS

    totals = [count.total() for count in counts]
    means = [f"{kind} {sum(count[kind] for count in counts) / len(counts):.1f}" for kind in NEAR_MISS_KINDS]
    return (
        f"Near-misses in the gallery: at least {min(totals)} per query, on average "
        f"{sum(totals) / len(totals):.1f} ({'; '.join(means)})."
    )
