"""Galleries and queries with exact truth, and an endless supply of training triplets.

A gallery is built around its queries. Several of them ask for changes of one reference; the reference, their targets
and near misses of both are among the products, as a shop has one product in many variants. The other products are
random. All products whose scene equals the target's are right answers, also those that are so by chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.drawn.draw import DrawnScene, draw_scene
from qdrant_cir.drawn.edit import Edit, Split, hard_negatives, sample_edit
from qdrant_cir.drawn.held_out import is_held_out
from qdrant_cir.drawn.language import describe_edit
from qdrant_cir.drawn.near_misses import NearMissKind, count_near_misses
from qdrant_cir.drawn.query_groups import DraftedQuery, draft_group
from qdrant_cir.drawn.scene import Scene, sample_scene
from qdrant_cir.errors import InputError

__all__ = [
    "GALLERY_VERSION",
    "DrawnCatalog",
    "DrawnItem",
    "DrawnQuery",
    "TrainingTriplet",
    "draw_item",
    "is_held_out",
    "sample_drawn",
    "sample_training_edit",
    "sample_training_scene",
]

GALLERY_VERSION = 3
"""Raised when the same seed and numbers lead to other products or queries."""

_HARD_NEGATIVES = 10
_SHARING, _MOST_SHARING = 20, 40
_LEAST_NEAR_MISSES = 3
_BUILT_SHARE = 0.9
_SECOND_RENDERINGS = 0.08
_SPLIT_STREAMS = {"train": 1, "test": 2}
_DRAWING_STREAM = 7
_PARAPHRASE_STREAM = 13
_DIFFERENCE = re.compile(r"\b(more|fewer)\b")


_MOST_PRODUCTS = 1_000_000


@dataclass(frozen=True, slots=True)
class DrawnItem:
    """One product of a gallery. Its place in ``DrawnCatalog.items`` and the seed decide its picture."""

    image_id: str
    scene: Scene


@dataclass(frozen=True, slots=True)
class DrawnQuery:
    """One query of a gallery.

    Attributes:
        query_id: unique in the catalogue.
        reference_id: image id of the reference, which is in the gallery and never a target.
        modification_text: what is asked for.
        kind: one of ``EDIT_KINDS``.
        target_ids: every product that equals the edited scene, in gallery order; at least one.
        drawn_target_id: the one of them that was drawn for this query, for formats with a single target.
        paraphrase: the same edit in other words, as a second annotator would say it.
        is_unseen: whether the reference or the target is a combination that training never sees.
    """

    query_id: str
    reference_id: str
    modification_text: str
    kind: str
    target_ids: tuple[str, ...]
    drawn_target_id: str
    paraphrase: str
    is_unseen: bool


@dataclass(frozen=True, slots=True)
class DrawnCatalog:
    """A gallery of drawn products and its queries; ``seed`` and ``split`` also decide the pictures."""

    seed: int
    split: Split
    items: tuple[DrawnItem, ...]
    queries: tuple[DrawnQuery, ...]

    def count_near_misses(self) -> list[Counter[NearMissKind]]:
        """Count the products that nearly answer each query, by kind, in the order of the queries."""
        place_of = {item.image_id: place for place, item in enumerate(self.items)}
        places = [(place_of[query.reference_id], place_of[query.drawn_target_id]) for query in self.queries]
        return count_near_misses([item.scene for item in self.items], places)


@dataclass(frozen=True, slots=True)
class TrainingTriplet:
    """One training example; ``edit.target`` is the target.

    Attributes:
        reference: the reference scene.
        edit: what is asked for.
        text: the modification text.
        negatives: near misses, the reference first; never the target.
    """

    reference: Scene
    edit: Edit
    text: str
    negatives: list[Scene]


def _is_allowed(scene: Scene) -> bool:
    return not is_held_out(scene)


def sample_training_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene that training may show."""
    return sample_scene(rng, allow=_is_allowed)


def sample_training_edit(rng: np.random.Generator, *, negatives: int = 4) -> TrainingTriplet:
    """Draw a training example; none of its scenes is held out.

    Args:
        rng: source of randomness.
        negatives: number of near misses.
    """
    reference = sample_training_scene(rng)
    edit = sample_edit(reference, rng, split="train")
    while is_held_out(edit.target):
        edit = sample_edit(reference, rng, split="train")
    text = describe_edit(edit, rng, split="train")
    return TrainingTriplet(reference, edit, text, hard_negatives(reference, edit, rng, n=negatives, allow=_is_allowed))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many queries share a reference, and how many near misses each has besides the others' targets."""

    sharing: int
    near_misses: int


def _plan(products: int, queries: int) -> _Plan:
    """Choose how many queries share a reference: the usual number, or more where products are few.

    A reference adds fewer than 100 products, so that re-ranking 100 can see all of them.
    """
    if queries < 1 or products < 1:
        raise InputError(
            f"A catalogue needs at least one product and one query; got products={products}, queries={queries}."
        )
    if products > _MOST_PRODUCTS:
        raise InputError(f"A catalogue has at most {_MOST_PRODUCTS:,} products; got {products}.")
    enough = []
    for sharing in range(min(queries, _SHARING), min(queries, _MOST_SHARING) + 1):
        groups = math.ceil(queries / sharing)
        near_misses = max(_LEAST_NEAR_MISSES, _HARD_NEGATIVES - sharing)
        enough.append(math.ceil((1 + sharing * (1 + near_misses)) * groups / _BUILT_SHARE))
        if enough[-1] <= products:
            return _Plan(sharing, near_misses)
    raise InputError(
        f"{products} products are too few for {queries} queries with {_HARD_NEGATIVES} hard negatives each; "
        f"{min(enough)} are enough."
    )


def sample_drawn(seed: int, *, products: int, queries: int, split: Split = "test") -> DrawnCatalog:
    """Draw a gallery of exactly ``products`` items with ``queries`` queries.

    Every query has its reference, at least one target and at least ten hard negatives in the gallery. Twenty queries
    share a reference, or more where products are few, so that the target of one is a hard negative of the others.

    Args:
        seed: the same seed and numbers give the same catalogue.
        products: size of the gallery.
        queries: number of queries.
        split: ``test`` also has held-out scenes and wordings, ``train`` has none.

    Raises:
        InputError: there are too few products for the queries' references, targets and hard negatives.
    """
    plan = _plan(products, queries)
    rng = np.random.default_rng([seed, _SPLIT_STREAMS[split]])
    allow = _is_allowed if split == "train" else None
    scenes: list[Scene] = []
    drafts: list[DraftedQuery] = []
    while len(drafts) < queries:
        size = min(plan.sharing, queries - len(drafts))
        near_misses = max(plan.near_misses, _HARD_NEGATIVES - size)
        drafts += draft_group(
            scenes, rng, size=size, near_misses=near_misses, least=_HARD_NEGATIVES, split=split, allow=allow
        )
    while len(scenes) < products:
        if rng.random() < _SECOND_RENDERINGS:
            scenes.append(drafts[int(rng.random() * len(drafts))].edit.target)
        else:
            scenes.append(sample_scene(rng, allow=allow))
    # so that the first queries, however many, are a fair sample of all
    shuffled = [drafts[number] for number in rng.permutation(len(drafts)).tolist()]
    return _assemble(seed, split, scenes, shuffled, rng)


def _assemble(
    seed: int, split: Split, scenes: Sequence[Scene], drafts: Sequence[DraftedQuery], rng: np.random.Generator
) -> DrawnCatalog:
    """Shuffle the gallery and look up the targets."""
    order = rng.permutation(len(scenes))
    items = tuple(DrawnItem(f"p{place:06d}", scenes[int(old)]) for place, old in enumerate(order))
    place_of = {int(old): place for place, old in enumerate(order)}
    same: dict[Scene, list[str]] = {}
    for item in items:
        same.setdefault(item.scene, []).append(item.image_id)
    queries = tuple(
        DrawnQuery(
            f"q{number:05d}",
            items[place_of[draft.reference]].image_id,
            draft.text,
            draft.edit.kind,
            tuple(same[draft.edit.target]),
            items[place_of[draft.target]].image_id,
            _paraphrase(draft, np.random.default_rng([seed, _SPLIT_STREAMS[split], number, _PARAPHRASE_STREAM]), split),
            is_held_out(draft.edit.reference) or is_held_out(draft.edit.target),
        )
        for number, draft in enumerate(drafts)
    )
    return DrawnCatalog(seed, split, items, queries)


def _paraphrase(draft: DraftedQuery, rng: np.random.Generator, split: Split) -> str:
    """Word a draft's edit a second time.

    At most one of the two texts names a difference ("one more button"): both together would mean it twice.
    """
    while True:
        text = describe_edit(draft.edit, rng, split=split)
        differences = [_DIFFERENCE.search(said) is not None for said in (text, draft.text)]
        if text != draft.text and not all(differences):
            return text


def draw_item(drawn: DrawnCatalog, index: int, *, size: int = 256) -> DrawnScene:
    """Draw the picture of one product. It depends on the seed, the split, the index and the scene alone."""
    rng = np.random.default_rng([drawn.seed, _SPLIT_STREAMS[drawn.split], index, _DRAWING_STREAM])
    return draw_scene(drawn.items[index].scene, rng, size=size)
