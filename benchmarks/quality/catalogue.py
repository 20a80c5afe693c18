"""The held-out catalogue: drawn into a folder, then read back as its files say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.progress import Progress
from benchmarks.quality.templates import uses_unseen_template
from qdrant_cir.drawn.dataset import sample_drawn
from qdrant_cir.drawn.files import write_drawn

PICTURE_SIZE = 128


@dataclass(frozen=True, slots=True)
class HeldOutQuery:
    """One query; pictures are rows of the gallery.

    Attributes:
        text: the modification text.
        reference: row of the reference.
        targets: rows of every right answer.
        labels: the slices it belongs to: its kind of edit, its combination, its templates.
    """

    text: str
    reference: int
    targets: frozenset[int]
    labels: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A gallery and its queries.

    Attributes:
        pictures: files of the gallery; their order is that of the image ids.
        queries: the queries.
        seed: that it was drawn with.
    """

    pictures: tuple[Path, ...]
    queries: tuple[HeldOutQuery, ...]
    seed: int


def draw_held_out(folder: Path, *, products: int, queries: int, seed: int) -> HeldOut:
    """Draw what is missing of the catalogue, and give it.

    Args:
        folder: made when missing; one catalogue per folder.
        products: pictures of the gallery.
        queries: how many.
        seed: of the test split.

    Raises:
        InputError: the folder holds another catalogue, or so few products cannot hold so many queries.
    """
    catalog = sample_drawn(seed, products=products, queries=queries)
    if not (folder / "queries.jsonl").exists():
        progress = Progress("drawing pictures", products)
        write_drawn(catalog, folder, size=PICTURE_SIZE, progress=lambda done, _: progress.reaches(done))
    else:
        write_drawn(catalog, folder, size=PICTURE_SIZE)
    rows = {item.image_id: row for row, item in enumerate(catalog.items)}
    return HeldOut(
        pictures=tuple(folder / "images" / f"{item.image_id}.jpg" for item in catalog.items),
        queries=tuple(
            HeldOutQuery(
                text=query.modification_text,
                reference=rows[query.reference_id],
                targets=frozenset(rows[target] for target in query.target_ids),
                labels=(
                    query.kind,
                    f"{'unseen' if query.is_unseen else 'seen'} combination",
                    f"{'an unseen template' if uses_unseen_template(query.modification_text) else 'seen templates'}",
                ),
            )
            for query in catalog.queries
        ),
        seed=seed,
    )
