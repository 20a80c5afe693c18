"""A drawn catalogue's queries in the layout of FashionIQ, over the same pictures.

Every family with queries is a category with a gallery of its own: ``captions/cap.FAMILY.val.json`` and
``image_splits/split.FAMILY.val.json``. Readers find the pictures in ``images``, so nothing is copied. The key
``candidate`` is the reference, as in FashionIQ. Its queries have one target: here the one that was drawn for the query.
Other pictures of the same product stay in the gallery, where FashionIQ counts them as wrong.
"""

from __future__ import annotations

import json
from pathlib import Path

from qdrant_cir.drawn.dataset import DrawnCatalog, DrawnQuery

__all__ = ["fashioniq_files"]


def fashioniq_files(drawn: DrawnCatalog) -> dict[Path, str]:
    """Return the contents of the annotation files, by their paths inside the folder."""
    family_of = {item.image_id: item.scene.family for item in drawn.items}
    captions: dict[str, list[dict[str, str | list[str]]]] = {}
    for query in drawn.queries:
        captions.setdefault(family_of[query.reference_id], []).append(_entry(query))
    contents: dict[Path, str] = {}
    for family, entries in sorted(captions.items()):
        gallery = [image_id for image_id, found in family_of.items() if found == family]
        contents[Path("captions") / f"cap.{family}.val.json"] = json.dumps(entries, indent=4)
        contents[Path("image_splits") / f"split.{family}.val.json"] = json.dumps(gallery, indent=4)
    return contents


def _entry(query: DrawnQuery) -> dict[str, str | list[str]]:
    return {
        "target": query.drawn_target_id,
        "candidate": query.reference_id,
        "captions": [query.modification_text, query.paraphrase],
    }
