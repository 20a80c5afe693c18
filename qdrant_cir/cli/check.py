"""``qdrant-cir check``: what is wrong with what is stored, and its repair. Loads no graph."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from qdrant_cir.cli import printing
from qdrant_cir.cli.options import (
    BundleOption,
    JsonOption,
    StoreOptions,
    VectorOption,
    open_bundle,
    packaged_bundle,
    with_options,
)
from qdrant_cir.errors import StoreError, StoreLockedError, TokensError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qdrant_cir.indexing.checking import CheckReport, Finding
    from qdrant_cir.storage.collection import Collection
    from qdrant_cir.storage.stores.protocol import Store
    from qdrant_cir.types import JsonObject

__all__ = ["check"]


@with_options({"store": StoreOptions})
def check(
    *,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="One collection; all by default.", show_default=False),
    ] = None,
    vector: VectorOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what nothing can use, and list what to index again.")
    ] = False,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
    store: StoreOptions,
) -> None:
    """Look at every image, its vector and its tokens, and list by id what is missing, stale, damaged or left over.

    Nothing else should write meanwhile. The exit code is 0 where nothing is left to do, and 8 where images have to be
    indexed again or --repair has something to remove. Of an attached collection, --repair touches our vector and the
    tokens alone.
    """
    from qdrant_cir.indexing.checking import check_store

    place = store.place
    with place.opened(creates=False) as opened:
        resolved = None if collection is None else opened.resolve(collection)
        around = check_store(opened, resolved, repair=repair)
        skipped = {finding.id for finding in around}
        reports = list(_reports(opened, resolved, vector, bundle, repair=repair, skipped=skipped))
    open_findings = [finding for finding in around if finding.is_open]
    open_findings += [finding for report in reports for finding in report.findings if finding.is_open]
    if as_json:
        printing.print_json(
            {
                "store": place.label,
                "is_whole": not open_findings,
                "repaired": repair,
                "collections": [_report_json(report) for report in reports],
                "halves": [_finding_json(finding) for finding in around],
            }
        )
    else:
        for finding in around:
            printing.print_text(_line(finding))
        for report in reports:
            printing.print_text(_heading(report))
            for finding in report.findings:
                printing.print_text(f"  {_line(finding)}")
        if not reports and not around:
            printing.print_text(f"There is no gallery in {place.label}.")
    if open_findings:
        to_index = len({finding.id for finding in open_findings if finding.needs_index})
        advice = [f"{to_index} to index again with `qdrant-cir index`"] if to_index else []
        left_over = sum(not finding.needs_index for finding in open_findings)
        advice += [f"{left_over} to remove with `qdrant-cir check --repair`"] if left_over else []
        raise TokensError(f"{place.label} is not whole: {', '.join(advice)}.")


def _reports(
    store: Store, name: str | None, vector: str | None, bundle: Path | None, *, repair: bool, skipped: set[str]
) -> Iterator[CheckReport]:
    from qdrant_cir.indexing.checking import CheckReport, Finding, check_collection
    from qdrant_cir.storage.stores.edge import EdgeStore

    given = None if bundle is None else open_bundle(bundle)
    for gallery_name, attached, opened in _galleries(store, name, vector, skipped=skipped):
        try:
            gallery = opened()
            known = given or packaged_bundle(gallery.spec.fingerprint)
            yield check_collection(gallery, known, repair=repair)
        except StoreError as error:
            # one damaged collection of a folder does not hide the others; a server that fails does
            if not isinstance(store, EdgeStore) or isinstance(error, StoreLockedError):
                raise
            printing.print_note(str(error))
            yield CheckReport(gallery_name, attached, 0, (Finding("unreadable collection", gallery_name),))


def _galleries(
    store: Store, name: str | None, vector: str | None, *, skipped: set[str]
) -> Iterator[tuple[str, str | None, Callable[[], Collection]]]:
    """List one collection with all that is attached to it, or all collections, but for halves: what opens each."""
    from qdrant_cir.storage.attachment import list_attachments
    from qdrant_cir.storage.collection import Collection, list_collections

    attached = [
        each for each in list_attachments(store) if name in (None, each.collection) and vector in (None, each.vector)
    ]
    if name is not None and not attached and name not in skipped and not _is_companion_of(name, skipped):
        yield name, vector, partial(Collection.find, store, name, vector=vector)
    for own in list_collections(store) if name is None and vector is None else []:
        yield own, None, partial(Collection.open, store, own)
    for each in attached:
        if each.layout.companion not in skipped:
            yield each.collection, each.vector, partial(Collection.open_attached, store, each.collection, each.vector)


def _is_companion_of(name: str, skipped: set[str]) -> bool:
    return any(each.startswith(f"{name}__") for each in skipped)


def _heading(report: CheckReport) -> str:
    where = report.collection if report.vector is None else f"{report.collection}, vector {report.vector}"
    counts = Counter(finding.kind for finding in report.findings)
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing is wrong"
    return f"{where}: {report.images} images; {found}"


def _line(finding: Finding) -> str:
    removed = " (removed)" if finding.is_removed else ""
    return f"{finding.id}: {finding.kind}{removed}{'; index it again' if finding.needs_index else ''}"


def _report_json(report: CheckReport) -> JsonObject:
    return {
        "collection": report.collection,
        "vector": report.vector,
        "images": report.images,
        "is_whole": report.is_whole,
        "findings": [_finding_json(finding) for finding in report.findings],
        "to_index": [*report.to_index],
    }


def _finding_json(finding: Finding) -> JsonObject:
    return {
        "id": finding.id,
        "kind": finding.kind,
        "is_removed": finding.is_removed,
        "needs_index": finding.needs_index,
    }
