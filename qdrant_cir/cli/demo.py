"""The demonstration: a drawn catalogue, indexed, searched with six edits, shown as tables and one picture."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from PIL.Image import Image

from qdrant_cir.cli import printing
from qdrant_cir.cli.answering import save_picture
from qdrant_cir.contact_sheet import SheetRow, draw_contact_sheet
from qdrant_cir.drawn.dataset import Catalog, CatalogQuery, sample_catalog
from qdrant_cir.drawn.files import write_catalog
from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import read_manifest
from qdrant_cir.model.bundle import Bundle
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.model.sessions import ExecutionProvider
from qdrant_cir.retriever import Retriever
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores import EdgeStore
from qdrant_cir.types import GalleryImage, JsonObject, Query, SearchResult

__all__ = ["DemoAnswer", "run_demo"]

COLLECTION = "catalog"
SHOWN_QUERIES = 6
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


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What becomes of all queries of the demonstration.

    Attributes:
        queries: how many.
        first_before, first_after: those whose right product stands first, in stage one and after re-ranking.
        brought, lost: those whose right product re-ranking brings to the top, and takes from there.
    """

    queries: int
    first_before: int
    first_after: int
    brought: int
    lost: int

    @property
    def sentence(self) -> str:
        """Say it, and how the queries that are shown were chosen."""
        return (
            f"Of all {self.queries} queries {self.first_before} have the right product first when retrieved and "
            f"{self.first_after} after re-ranking, which brings {self.brought} to the top and takes {self.lost} from "
            "there. Those shown are chosen: queries that it answers and retrieval alone does not, and last one that it "
            "does not either."
        )


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
            every = _answers(retriever, catalog)
    answers, summary = _telling(every), _summary(every)
    sheet = folder.absolute() / "contact_sheet.png"
    save_picture(_sheet(answers, folder / "catalog" / "images", products), sheet)
    if prints_tables:
        for answer in answers:
            _print_answer(answer)
        typer.echo(summary.sentence)
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


def _answers(retriever: Retriever, catalog: Catalog) -> list[DemoAnswer]:
    """Answer every query of the catalogue."""
    with printing.show_counts(f"answering {len(catalog.queries)} queries") as show_count:
        answers: list[DemoAnswer] = []
        for query in catalog.queries:
            answers.append(_answer(retriever, query))
            show_count(len(answers), len(catalog.queries))
    return answers


def _telling(answers: list[DemoAnswer]) -> list[DemoAnswer]:
    """Choose ``SHOWN_QUERIES``: such whose right product re-ranking brings to the top, and last one that it does not.

    Kinds and references that were not shown yet come before the others. Where too few are brought to the top, others
    take their place, first those that stage one alone does not answer.
    """
    chosen: list[DemoAnswer] = []
    for is_last in [False] * (SHOWN_QUERIES - 1) + [True]:
        kinds = [answer.query.kind for answer in chosen]
        references = {answer.query.reference_id for answer in chosen}
        chosen += sorted(
            (answer for answer in answers if answer not in chosen),
            key=lambda answer: (
                answer.place_before == 1,
                (answer.place_after == 1) == is_last,
                kinds.count(answer.query.kind),
                answer.query.reference_id in references,
            ),
        )[:1]
    return chosen


def _summary(answers: list[DemoAnswer]) -> DemoSummary:
    return DemoSummary(
        queries=len(answers),
        first_before=sum(answer.place_before == 1 for answer in answers),
        first_after=sum(answer.place_after == 1 for answer in answers),
        brought=sum(answer.place_before != 1 and answer.place_after == 1 for answer in answers),
        lost=sum(answer.place_before == 1 and answer.place_after != 1 for answer in answers),
    )


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
    title = f"{len(rows)} chosen queries over {products:,} drawn products; right answers framed in green"
    return draw_contact_sheet(rows, title=title)
