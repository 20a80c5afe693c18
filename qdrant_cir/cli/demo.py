"""The demonstration: a drawn catalogue, indexed, searched with six edits, shown as tables and one picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import typer
from PIL.Image import Image

from qdrant_cir.bundle import Bundle
from qdrant_cir.catalog.dataset import Catalog, CatalogQuery, sample_catalog
from qdrant_cir.catalog.files import write_catalog
from qdrant_cir.cli import printing
from qdrant_cir.cli.answering import save_picture
from qdrant_cir.collection import Collection
from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet
from qdrant_cir.image_encoder import ImageEncoder
from qdrant_cir.image_sources import read_manifest
from qdrant_cir.indexer import Indexer
from qdrant_cir.retriever import Retriever
from qdrant_cir.sessions import ExecutionProvider
from qdrant_cir.stores import EdgeStore
from qdrant_cir.types import GalleryImage, JsonObject, Query, SearchResult

__all__ = ["DemoAnswer", "run_demo"]

COLLECTION = "catalog"
DEMO_KINDS = ("recolour", "repattern", "recount", "remove", "swap", "two")
"""The kinds of edit that are shown, one query of each."""

_SEED = 2026
_RERANK_DEPTH = 100
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One query of the demonstration, its answer, and where the best right product stands.

    Attributes:
        query: with its kind and right answers.
        result: re-ranked, with every candidate of stage one.
        place_before: from 1, in stage one; None where it is not among the candidates.
        place_after: from 1, after re-ranking; None likewise.
    """

    query: CatalogQuery
    result: SearchResult
    place_before: int | None
    place_after: int | None

    def as_json(self) -> JsonObject:
        """Give the answer as JSON."""
        return {
            "kind": self.query.kind,
            "reference": self.query.reference_id,
            "modification_text": self.query.modification_text,
            "targets": list(self.query.target_ids),
            "place_before": self.place_before,
            "place_after": self.place_after,
        }


def run_demo(
    folder: Path, bundle: Bundle, *, products: int, provider: ExecutionProvider, prints_tables: bool
) -> JsonObject:
    """Draw, index, search and show; what an earlier run has done is kept.

    Args:
        folder: gets ``catalog``, ``store`` and ``contact_sheet.png``.
        bundle: the model.
        products: size of the catalogue.
        provider: where the graphs run.
        prints_tables: write a table per query to stdout.

    Returns:
        Places before and after re-ranking, seconds per step, and the sheet's path, as JSON.

    Raises:
        CirError: what the steps raise.
    """
    queries = max(1, products * 6 // 100)
    catalog = sample_catalog(_SEED, products=products, queries=queries)
    started = time.monotonic()
    with printing.show_counts(f"drawing {products} products") as show_count:
        write_catalog(catalog, folder / "catalog", progress=show_count)
    drawn = time.monotonic()
    with EdgeStore(folder / "store") as store:
        gallery = Collection.create(store, COLLECTION, bundle)
        with printing.show_progress(f"indexing {products} products") as progress:
            encoder = ImageEncoder.open(bundle, provider=provider)
            records = read_manifest(folder / "catalog" / "gallery.csv")
            report = Indexer(gallery, encoder, bundle).index(records, progress=progress)
        indexed = time.monotonic()
        printing.print_note(printing.index_report_text(COLLECTION, report, images=gallery.count(None)))
        with Retriever.open(COLLECTION, store=store, bundle=bundle.folder, provider=provider) as retriever:
            answers = _hard_answers(retriever, catalog)
    sheet = folder.absolute() / "contact_sheet.png"
    save_picture(_sheet(answers, folder / "catalog" / "images", products), sheet)
    if prints_tables:
        for answer in answers:
            _print_answer(answer)
    return {
        "products": products,
        "queries": [answer.as_json() for answer in answers],
        "sheet": str(sheet),
        "seconds": {
            "draw": round(drawn - started, 1),
            "index": round(indexed - drawn, 1),
            "search": round(time.monotonic() - indexed, 1),
        },
    }


def _hard_answers(retriever: Retriever, catalog: Catalog) -> list[DemoAnswer]:
    """Answer a query of each kind in ``DEMO_KINDS``: the first that stage one alone does not answer, else the first.

    References that were not shown yet are tried before the others. What re-ranking makes of a query is not looked at:
    some right products come to the top, and some do not.
    """
    answers: list[DemoAnswer] = []
    for kind in DEMO_KINDS:
        first: DemoAnswer | None = None
        of_kind = [query for query in catalog.queries if query.kind == kind]
        shown = {answer.query.reference_id for answer in answers}
        for query in sorted(of_kind, key=lambda query: query.reference_id in shown):
            answer = _answer(retriever, query)
            first = first or answer
            if answer.place_before != 1:
                first = answer
                break
        if first is not None:
            answers.append(first)
    return answers


def _answer(retriever: Retriever, query: CatalogQuery) -> DemoAnswer:
    result = retriever.search(
        Query(GalleryImage(query.reference_id), query.modification_text),
        limit=_RERANK_DEPTH,
        rerank_depth=_RERANK_DEPTH,
        exclude_reference=True,
    )
    right = [
        (candidate.retrieval_rank, place)
        for place, candidate in enumerate(result.candidates, start=1)
        if candidate.image_id in query.target_ids
    ]
    return DemoAnswer(
        query=query,
        result=result,
        place_before=min((before for before, _ in right), default=None),
        place_after=min((after for _, after in right), default=None),
    )


def _print_answer(answer: DemoAnswer) -> None:
    before, after = (_place_text(place) for place in (answer.place_before, answer.place_after))
    title = f'{answer.query.kind}: {answer.query.reference_id}, "{answer.query.modification_text}"'
    rows = [
        (
            str(place),
            candidate.image_id + (" *" if candidate.image_id in answer.query.target_ids else ""),
            "-" if candidate.rerank_score is None else f"{candidate.rerank_score:.3f}",
            str(candidate.retrieval_rank),
            str(candidate.payload.get("title", "")),
        )
        for place, candidate in enumerate(answer.result.candidates[:_SHOWN], start=1)
    ]
    printing.print_table(("#", "image", "re-rank score", "retrieved #", "title"), rows, title=title)
    typer.echo(f"the right product (*): {before} when retrieved, {after} after re-ranking\n")


def _place_text(place: int | None) -> str:
    return f"not among the first {_RERANK_DEPTH}" if place is None else f"place {place}"


def _sheet(answers: list[DemoAnswer], images: Path, products: int) -> Image:
    rows = [
        SheetRow(
            reference=images / f"{answer.query.reference_id}.jpg",
            modification_text=answer.query.modification_text,
            result=answer.result,
            target_ids=frozenset(answer.query.target_ids),
        )
        for answer in answers
    ]
    title = f"{len(rows)} composed queries over {products:,} drawn products; right answers framed in green"
    return draw_contact_sheet(rows, title=title)
