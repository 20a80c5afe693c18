"""``qdrant-cir catalog``: drawn products on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import JsonOption
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_cir.drawn.near_misses import NearMissSummary

__all__ = ["catalog_app"]

_LARGEST = 8192
"""Pixels of a side of the pictures."""

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
    from qdrant_cir.drawn.dataset import sample_drawn
    from qdrant_cir.drawn.files import write_drawn
    from qdrant_cir.drawn.near_misses import summarise_near_misses

    if seed < 0 or not 1 <= size <= _LARGEST:
        raise InputError(
            f"seed is {seed} and size is {size}; seed must be at least 0, and size at least 1 and at most {_LARGEST}."
        )
    drawn = sample_drawn(seed, products=products, queries=queries)
    with printing.show_counts(f"drawing {products} products") as show_count:
        write_drawn(drawn, out, size=size, progress=show_count)
    near = summarise_near_misses(drawn.count_near_misses())
    if as_json:
        printing.print_json(
            {
                "folder": str(out),
                "products": len(drawn.items),
                "queries": len(drawn.queries),
                "seed": seed,
                "near_misses_per_query": {
                    "least": near.least,
                    "mean": round(near.mean, 2),
                    "mean_by_kind": {kind: round(mean, 2) for kind, mean in near.mean_by_kind.items()},
                },
            }
        )
        return
    printing.print_text(f"{out} holds {len(drawn.items)} products (gallery.csv) and {len(drawn.queries)} queries.")
    printing.print_text(_near_misses_text(near))


def _near_misses_text(near: NearMissSummary) -> str:
    means = "; ".join(f"{kind} {mean:.1f}" for kind, mean in near.mean_by_kind.items())
    return f"Near-misses in the gallery: at least {near.least} per query, on average {near.mean:.1f} ({means})."
