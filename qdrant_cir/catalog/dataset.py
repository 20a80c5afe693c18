"""Galleries and queries with exact truth, and an endless supply of training triplets.

A gallery is built around its queries: for each, the reference, the target and near-misses of both are among
the products, and the rest is random. Targets are then looked up by scene equality over the whole gallery,
so that a product that happens to be right counts as right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdrant_cir.catalog.draw import DrawnScene, draw_scene
from qdrant_cir.catalog.edit import Edit, Split, hard_negatives, sample_edit
from qdrant_cir.catalog.held_out import is_held_out
from qdrant_cir.catalog.language import describe_edit
from qdrant_cir.catalog.scene import Scene, sample_scene
from qdrant_cir.errors import InputError

__all__ = [
    "Catalog",
    "CatalogItem",
    "CatalogQuery",
    "TrainingTriplet",
    "draw_item",
    "is_held_out",
    "sample_catalog",
    "sample_training_edit",
    "sample_training_scene",
]

_HARD_NEGATIVES = 10
_FEWEST_OWN_NEGATIVES, _MOST_OWN_NEGATIVES = 2, 11
_BUILT_SHARE = 0.9
_SECOND_RENDERINGS = 0.08
_SPLIT_STREAMS = {"train": 1, "test": 2}
_DRAWING_STREAM = 7


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """One product of a gallery. Its place in ``Catalog.items`` decides its picture."""

    image_id: str
    scene: Scene


@dataclass(frozen=True, slots=True)
class CatalogQuery:
    """One query of a gallery.

    Attributes:
        query_id: unique in the catalogue.
        reference_id: image id of the reference, which is in the gallery and never a target.
        modification_text: what is asked for.
        kind: one of ``EDIT_KINDS``.
        target_ids: every gallery item that equals the edited scene, in gallery order; at least one.
    """

    query_id: str
    reference_id: str
    modification_text: str
    kind: str
    target_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """A gallery and its queries; ``seed`` and ``split`` also decide the pictures."""

    seed: int
    split: Split
    items: tuple[CatalogItem, ...]
    queries: tuple[CatalogQuery, ...]


@dataclass(frozen=True, slots=True)
class TrainingTriplet:
    """One training example; ``edit.target`` is the target.

    Attributes:
        reference: the reference scene.
        edit: what is asked for.
        text: the modification text.
        negatives: near-misses, the reference first; never the target.
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
        negatives: how many near-misses to add.
    """
    reference = sample_training_scene(rng)
    edit = sample_edit(reference, rng, split="train")
    while is_held_out(edit.target):
        edit = sample_edit(reference, rng, split="train")
    text = describe_edit(edit, rng, split="train")
    return TrainingTriplet(reference, edit, text, hard_negatives(reference, edit, rng, n=negatives, allow=_is_allowed))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many queries share a reference, and how many near-misses each has besides the others' targets."""

    sharing: int
    own: int


def _plan(products: int, queries: int) -> _Plan:
    """Choose the least sharing at which every query has its near-misses and the gallery its random share."""
    if queries < 1 or products < 1:
        raise InputError(
            f"A catalogue needs at least one product and one query; got products={products}, queries={queries}."
        )
    budget = products * _BUILT_SHARE
    for sharing in range(1, min(queries, 40) + 1):
        groups = math.ceil(queries / sharing)
        own = min(math.floor((budget / groups - 1) / sharing - 1), _MOST_OWN_NEGATIVES)
        if own >= _FEWEST_OWN_NEGATIVES and sharing + own >= _HARD_NEGATIVES:
            return _Plan(sharing, own)
    raise InputError(
        f"{products} products are too few for {queries} queries with {_HARD_NEGATIVES} hard negatives each; "
        f"ask for at most {max(1, int(products * _BUILT_SHARE / 12))} queries, or for more products."
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    """A query before its targets are looked up: the place of its reference among the scenes, and its edit."""

    reference: int
    edit: Edit
    text: str


def _draft_group(scenes: list[Scene], size: int, own: int, rng: np.random.Generator, *, split: Split) -> list[_Draft]:
    """Add one reference with several edits of it, their targets and near-misses to the scenes."""
    allow = _is_allowed if split == "train" else None
    reference = sample_scene(rng, allow=allow)
    edits: list[Edit] = []
    while len(edits) < size:
        edit = sample_edit(reference, rng, split=split)
        if all(edit.target != other.target for other in edits) and (allow is None or allow(edit.target)):
            edits.append(edit)
    place = len(scenes)
    scenes.append(reference)
    scenes += [edit.target for edit in edits]
    present = set(scenes[place:])
    for edit in edits:
        drawn = hard_negatives(reference, edit, rng, n=1 + 2 * own, allow=allow)
        fresh = [scene for scene in drawn if scene not in present][:own]
        present.update(fresh)
        scenes += fresh
    return [_Draft(place, edit, describe_edit(edit, rng, split=split)) for edit in edits]


def sample_catalog(seed: int, *, products: int, queries: int, split: Split = "test") -> Catalog:
    """Draw a gallery of exactly ``products`` items with ``queries`` queries.

    Every query has its reference, at least one target and at least ten hard negatives in the gallery. When
    products are few, several queries share a reference, and one's target is a hard negative of the others.

    Args:
        seed: the same seed and numbers give the same catalogue.
        products: size of the gallery.
        queries: number of queries.
        split: ``test`` also has held-out scenes and wordings, ``train`` has none.

    Raises:
        InputError: when so few products cannot hold the queries' references, targets and hard negatives.
    """
    plan = _plan(products, queries)
    rng = np.random.default_rng([seed, _SPLIT_STREAMS[split]])
    scenes: list[Scene] = []
    drafts: list[_Draft] = []
    while len(drafts) < queries:
        size = min(plan.sharing, queries - len(drafts))
        own = max(plan.own, _HARD_NEGATIVES - size)
        drafts += _draft_group(scenes, size, own, rng, split=split)
    while len(scenes) < products:
        if rng.random() < _SECOND_RENDERINGS:
            scenes.append(drafts[int(rng.random() * len(drafts))].edit.target)
        else:
            scenes.append(sample_scene(rng, allow=_is_allowed if split == "train" else None))
    return _assemble(seed, split, scenes, drafts, rng)


def _assemble(
    seed: int, split: Split, scenes: Sequence[Scene], drafts: Sequence[_Draft], rng: np.random.Generator
) -> Catalog:
    """Shuffle the gallery and look up the targets."""
    order = rng.permutation(len(scenes))
    items = tuple(CatalogItem(f"p{place:06d}", scenes[int(old)]) for place, old in enumerate(order))
    place_of = {int(old): place for place, old in enumerate(order)}
    same: dict[Scene, list[str]] = {}
    for item in items:
        same.setdefault(item.scene, []).append(item.image_id)
    queries = tuple(
        CatalogQuery(
            f"q{number:05d}",
            items[place_of[draft.reference]].image_id,
            draft.text,
            draft.edit.kind,
            tuple(same[draft.edit.target]),
        )
        for number, draft in enumerate(drafts)
    )
    return Catalog(seed, split, items, queries)


def draw_item(catalog: Catalog, index: int, *, size: int = 256) -> DrawnScene:
    """Draw the picture of one item; it depends on the seed, the split, the index and the scene alone."""
    rng = np.random.default_rng([catalog.seed, _SPLIT_STREAMS[catalog.split], index, _DRAWING_STREAM])
    return draw_scene(catalog.items[index].scene, rng, size=size)
