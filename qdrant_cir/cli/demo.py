"""The demonstration: a drawn catalogue, indexed, searched with six edits, shown as tables and one picture."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

from PIL.Image import Image

from qdrant_cir.cli import printing
from qdrant_cir.cli.answering import save_picture
from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet
from qdrant_cir.drawn.dataset import DrawnCatalog, DrawnQuery, sample_drawn
from qdrant_cir.drawn.demonstration import DemoAnswer, choose_answers, demo_answer, summarise_answers
from qdrant_cir.drawn.files import write_drawn
from qdrant_cir.gallery import Gallery
from qdrant_cir.indexing.sources import read_manifest
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.compute import ExecutionProvider
from qdrant_cir.types import GalleryImage, JsonObject

__all__ = ["run_demo", "serve_command"]

COLLECTION = "catalog"
_SEED = 2026
_RERANK_DEPTH = 100
_SHOWN = 3


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
    catalog = sample_drawn(_SEED, products=products, queries=queries)
    started = time.monotonic()
    with printing.show_counts(f"drawing {products} products") as show_count:
        write_drawn(catalog, folder / "catalog", progress=show_count)
    drawn = time.monotonic()
    with Gallery.create(COLLECTION, store=folder / "store", bundle=bundle.folder, provider=provider) as gallery:
        with printing.show_progress(f"indexing {products} products") as progress:
            report = gallery.index(read_manifest(folder / "catalog" / "gallery.csv"), progress=progress)
        indexed = time.monotonic()
        printing.print_note(printing.index_report_text(COLLECTION, report, images=gallery.count()))
        every = _answers(gallery, catalog)
    answers, summary = choose_answers(every), summarise_answers(every)
    sheet = folder.absolute() / "contact_sheet.png"
    save_picture(_sheet(answers, folder / "catalog" / "images", products), sheet)
    if prints_tables:
        for answer in answers:
            _print_answer(answer)
        printing.print_text(summary.sentence)
    return {
        "products": products,
        "all_queries": asdict(summary),
        "queries": [answer.as_json() for answer in answers],
        "sheet": str(sheet),
        "seconds": {
            "draw": round(drawn - started, 1),
            "index": round(indexed - drawn, 1),
            "search": round(time.monotonic() - indexed, 1),
        },
    }


def serve_command(folder: Path) -> str:
    """Return the command that serves the demonstration's catalogue, with the program as it was called."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "qdrant-cir" else "qdrant-cir"
    return shlex.join([program, "serve", "--path", str(folder / "store"), "-c", COLLECTION])


def _answers(gallery: Gallery, catalog: DrawnCatalog) -> list[DemoAnswer]:
    """Answer every query of the catalogue."""
    with printing.show_counts(f"answering {len(catalog.queries)} queries") as show_count:
        answers: list[DemoAnswer] = []
        for query in catalog.queries:
            answers.append(_answer(gallery, query))
            show_count(len(answers), len(catalog.queries))
    return answers


def _answer(gallery: Gallery, query: DrawnQuery) -> DemoAnswer:
    result = gallery.search(
        GalleryImage(query.reference_id),
        query.modification_text,
        limit=_RERANK_DEPTH,
        rerank_depth=_RERANK_DEPTH,
        exclude_reference=True,
    )
    return demo_answer(query, result)


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
    printing.print_text(f"the right product (*): {before} when retrieved, {after} after re-ranking\n")


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
    title = f"{len(rows)} chosen queries over {products:,} drawn products; right answers framed in green"
    return draw_contact_sheet(rows, title=title)
