"""Are explanations true? The laws that they must keep, on drawn products, whose changed parts are known.

    .venv/bin/qdrant-cir catalog build --out why/catalog --products 4000 --queries 600 --seed 11
    .venv/bin/qdrant-cir index why/catalog/gallery.csv -c drawn --path why/store --bundle drawn
    .venv/bin/python -m benchmarks.explain --catalog why/catalog --store why/store

(a) The best cell lies in the box of a part that the text changed: its middle, so that chance is the boxes' share of all
cells. (b) Without its five best cells the score falls more than without five others drawn at random. (c) A text about
another part of the same picture has other cells: the overlap of the five best ones. (d) A candidate's score is the same
in a batch of one and of all. (e) Words that ask for nothing gain nothing. Then the time of one explanation.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from benchmarks.machine import LoadMeter, describe_machine
from qdrant_cir.drawn.dataset import DrawnCatalog, DrawnQuery, draw_item, sample_drawn
from qdrant_cir.drawn.draw import Box, draw_scene
from qdrant_cir.drawn.edit import edit_between
from qdrant_cir.drawn.language import describe_edit
from qdrant_cir.drawn.scene import Scene
from qdrant_cir.drawn.steps import apply_step, sample_step
from qdrant_cir.gallery import Gallery
from qdrant_cir.model.cores import available_threads
from qdrant_cir.search.explanation import Explanation
from qdrant_cir.search.path import compose_steps
from qdrant_cir.search.query_model import checked_query
from qdrant_cir.storage.steps import Stopwatch, run
from qdrant_cir.types import Float32, GalleryImage, ImageSource, Query, StoredTokens

BEST, WORDS, DEPTH = 5, 8, 100
FILLERS = frozenset(("please", "could", "you", "show", "me", "find", "this", "the", "a", "i", "want", "would", "like"))


@dataclass(frozen=True, slots=True)
class Falls:
    """What five cells of a candidate weigh: the fall of the score without the best ones, and without random ones."""

    best: float
    random: float


class Laws:
    """Explanations of single candidates of a drawn gallery."""

    def __init__(self, gallery: Gallery, catalog: DrawnCatalog) -> None:
        self.gallery, self.catalog = gallery, catalog
        self.places = {item.image_id: place for place, item in enumerate(catalog.items)}
        self.rng = np.random.default_rng(0)
        self.scorer = gallery._retriever.model._scorer

    def scene(self, image_id: str) -> Scene:
        """Return what a picture shows."""
        return self.catalog.items[self.places[image_id]].scene

    def boxes(self, image_id: str) -> dict[str, Box]:
        """Return where its parts are."""
        return draw_item(self.catalog, self.places[image_id]).boxes

    def explain(self, reference: ImageSource | GalleryImage, text: str, image_id: str) -> Explanation:
        """Explain one candidate as if it were alone."""
        point_id = self.gallery.collection.layout.point_id(image_id)
        alone = models.Filter(must=[models.HasIdCondition(has_id=[str(point_id)])])
        return self.gallery.explain(reference, text, image_id, rerank_depth=1, filter=alone)

    def scores(self, query: DrawnQuery, masks: Sequence[NDArray[np.bool_]]) -> Float32:
        """Score the query's target without the cells of each mask."""
        retriever = self.gallery._retriever
        asked = checked_query(Query(GalleryImage(query.reference_id), query.modification_text))
        store = self.gallery.collection.store
        composed = run(compose_steps(retriever.collection.reads, retriever.model, asked, Stopwatch()), store)
        target = self.gallery.collection.stored([query.drawn_target_id])[query.drawn_target_id]
        stored = self.scorer._form.decode([target.tokens.data])
        rows = np.zeros(len(masks), dtype=np.int64)
        weights = np.ones((len(masks), stored.values.shape[1]), dtype=np.float32)
        weights[:, 1:] = ~np.array([mask.ravel() for mask in masks])
        batch = StoredTokens(stored.values[rows], stored.scales[rows], weights)
        scores: Float32 = self.scorer._open_weighted().score(composed.terms[0].composed, batch)
        return scores

    def falls(self, query: DrawnQuery, drops: NDArray[np.float64]) -> Falls:
        """Weigh the five cells of the greatest drops against five random ones."""
        side = len(drops)
        none = np.zeros((side, side), dtype=bool)
        best, other = none.copy(), none.copy()
        best.ravel()[np.argsort(-drops.ravel(), kind="stable")[:BEST]] = True
        other.ravel()[self.rng.choice(side * side, BEST, replace=False)] = True
        whole, without_best, without_other = self.scores(query, [none, best, other]).tolist()
        return Falls(whole - without_best, whole - without_other)


def inside(boxes: Iterable[Box], side: int) -> NDArray[np.bool_]:
    """Return the cells whose middles lie in one of the boxes."""
    middles = (np.arange(side) + 0.5) / side
    cells = np.zeros((side, side), dtype=bool)
    for box in boxes:
        rows = (box.top <= middles) & (middles <= box.bottom)
        columns = (box.left <= middles) & (middles <= box.right)
        cells |= rows[:, None] & columns[None]
    return cells


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--catalog", type=Path, required=True, help="folder that `catalog build` wrote")
    parser.add_argument("--store", type=Path, required=True, help="embedded store")
    parser.add_argument("--collection", default="drawn")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=60, help="for law (c)")
    given = parser.parse_args()
    made = json.loads((given.catalog / "catalog.json").read_text(encoding="utf-8"))
    catalog = sample_drawn(made["seed"], products=made["products"], queries=made["queries"], split=made["split"])
    load = LoadMeter()
    with Gallery.open(given.collection, store=str(given.store)) as gallery:
        laws = Laws(gallery, catalog)
        measure_cells(laws, given.queries)
        measure_other_parts(laws, given.pairs)
        measure_time(laws)
    print(f"{describe_machine(available_threads())}; other processes took {load.cores_taken():.1f} cores")


def measure_cells(laws: Laws, count: int) -> None:
    """Print laws (a), (b), (d) and (e)."""
    hits: dict[str, list[bool]] = {"drops": [], "text_drops": []}
    wins: dict[str, list[bool]] = {"drops": [], "text_drops": []}
    chances, batches, fillers = [], [], []
    for query in laws.catalog.queries:
        target = query.drawn_target_id
        reference, scene = laws.scene(query.reference_id), laws.scene(target)
        boxes = laws.boxes(target)
        changed = [boxes[p.name] for p in scene.parts if reference.part(p.name) != p and p.name in boxes]
        if not changed:  # a part was taken away: there is nothing of it to see
            continue
        why = laws.explain(GalleryImage(query.reference_id), query.modification_text, target)
        if why.cells is None:
            raise SystemExit(why.notes[-1])
        where = inside(changed, why.cells.rows)
        chances.append(float(where.mean()))
        for name in hits:
            drops = np.array(getattr(why.cells, name))
            hits[name].append(bool(where.ravel()[drops.argmax()]))
            falls = laws.falls(query, drops)
            wins[name].append(falls.best > falls.random)
        nothing = np.zeros(where.shape, dtype=bool)
        many = laws.scores(query, [nothing] * (where.size + 1))
        batches.append(float(np.abs(many - laws.scores(query, [nothing])).max()))
        most = max(abs(word.drop) for word in why.words)
        asked_nothing = [word for word in why.words if word.word.lower().strip(",.?!") in FILLERS]
        fillers += [abs(word.drop) / most for word in asked_nothing]
        if len(chances) == count:
            break
    print(f"{len(chances)} queries; chance of (a) {np.mean(chances):.1%}")
    for name in hits:
        print(f"{name}: (a) {np.mean(hits[name]):.1%}, (b) {np.mean(wins[name]):.1%}")
    print(f"(d) greatest difference of a score in a batch of 1 and of {where.size + 1}: {max(batches):.1e}")
    print(
        f"(e) {len(fillers)} words that ask for nothing: median fall {np.median(fillers):.1%} of the greatest of the "
        f"same text, 90 % below {np.quantile(fillers, 0.9):.1%}"
    )


def measure_other_parts(laws: Laws, count: int) -> None:
    """Print law (c): one picture, two texts about different parts of it."""
    overlaps: list[float] = []
    rng = np.random.default_rng(1)
    for query in laws.catalog.queries:
        target = query.drawn_target_id
        scene, boxes = laws.scene(target), laws.boxes(target)
        found: list[tuple[str, Explanation]] = []
        for _ in range(12):
            step = sample_step(scene, rng, kind="recolour")
            if step is None or step.part not in boxes or len(found) == 2:
                continue
            if found and (step.part == found[0][0] or _overlap(boxes[step.part], boxes[found[0][0]]) > 0.3):
                continue
            before = apply_step(scene, step)
            edit = edit_between(before, scene)
            if edit is None:
                continue
            picture = draw_scene(before, rng).image
            why = laws.explain(picture, describe_edit(edit, rng, split="test"), target)
            found.append((step.part, why))
        if len(found) < 2:
            continue
        first, second = (set(why.cells.best(BEST)) for _, why in found if why.cells is not None)
        overlaps.append(len(first & second) / len(first | second))
        if len(overlaps) == count:
            break
    below = float(np.mean(np.array(overlaps) < 0.3))
    print(
        f"(c) {len(overlaps)} pictures with texts about two parts: the five best cells of each overlap by "
        f"{np.mean(overlaps):.2f} (intersection over union), below 0.3 in {below:.0%}"
    )


def measure_time(laws: Laws, count: int = 20) -> None:
    """Print the time of one explanation with K = 100 and eight words."""
    seconds, busy = [], []
    asked = [query for query in laws.catalog.queries if len(query.modification_text.split()) == WORDS][: count + 1]
    for query in asked:
        reference = GalleryImage(query.reference_id)
        result = laws.gallery.search(reference, query.modification_text, rerank_depth=DEPTH, limit=1)
        began, busy_before = perf_counter(), process_time()
        laws.gallery.explain(reference, query.modification_text, result[0], rerank_depth=DEPTH)
        seconds.append(perf_counter() - began)
        busy.append(process_time() - busy_before)
    # the first loads what the others use
    wall, work = statistics.median(seconds[1:]), statistics.median(busy[1:])
    print(
        f"time of one explanation, K = {DEPTH}, {WORDS} words, {len(seconds) - 1} queries: median {wall:.3f} s, best "
        f"{min(seconds[1:]):.3f} s; {work:.3f} s of processor time"
    )


def _overlap(first: Box, second: Box) -> float:
    """Return the intersection of two boxes over their union."""
    across = min(first.right, second.right) - max(first.left, second.left)
    down = min(first.bottom, second.bottom) - max(first.top, second.top)
    both = max(0.0, across) * max(0.0, down)
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in (first, second)]
    return both / max(sum(areas) - both, 1e-9)


if __name__ == "__main__":
    main()
