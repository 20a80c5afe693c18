"""Answers to learn from what a match is: of labelled queries, or of edits of the gallery's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qdrant_cir.errors import CirError, InputError
from qdrant_cir.evaluation.datasets.annotation_files import read_json_lines
from qdrant_cir.gallery import Gallery
from qdrant_cir.model.preprocess import load_image
from qdrant_cir.photographs.colours import COLOURS, HELD_OUT_COLOURS, NamedColour, lab_of_rgb, rgb_of_lab
from qdrant_cir.photographs.edits import Look, dressed
from qdrant_cir.photographs.masks import find_mask
from qdrant_cir.photographs.rendering import photographed
from qdrant_cir.search.match import MatchExample, match_features
from qdrant_cir.types import Candidate, GalleryImage, ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["examples_of_edits", "examples_of_queries"]

_TEXTS = (
    "in {c}",
    "the same in {c}",
    "make it {c}",
    "{c} instead",
    "is {c}",
    "change the color to {c}",
    "i want it in {c}",
    "has a {c} color",
)
_EDITED = ""
"""The id of an edited picture, which no image of a gallery has."""
_CLEARLY_OTHER = 30.0
"""Lab units between a picture's colour and the one that is asked for."""
_LARGEST_SIDE = 512
_PAGE = 256
_TRIES = 4
"""Pictures that are looked at for each that is wanted: of some no garment is found, or it cannot take the colour."""


def examples_of_queries(
    queries: Path,
    gallery: Gallery,
    *,
    rerank_depth: int,
    exclude_reference: bool,
    progress: Callable[[int, int], None],
) -> list[MatchExample]:
    """Answer every query of a file twice: as it is, and as if its targets were not in the gallery.

    Args:
        queries: JSONL with ``reference``, ``modification_text`` and ``targets``, as for ``evaluate own``.
        gallery: that the targets are in; a query none of whose targets it holds counts as one without an answer.
        rerank_depth: candidates to re-rank.
        exclude_reference: as in the searches to come.
        progress: called with the number done and the number of all.

    Raises:
        CirError: as :meth:`Gallery.search`; InputError for a file that cannot be read.
    """
    entries = read_json_lines(queries)
    examples: list[MatchExample] = []
    for number, entry in enumerate(entries):
        given, targets = entry.text("reference"), set(entry.texts("targets"))
        picture = queries.parent / given
        # as many more as may be taken out, so that as many are left
        depth = rerank_depth + len(targets)
        found = gallery.search(
            picture if picture.is_file() else GalleryImage(given),
            entry.text("modification_text"),
            limit=depth,
            rerank_depth=depth,
            exclude_reference=exclude_reference,
            min_match=0,
        )
        by_retrieval = sorted(found.candidates, key=lambda candidate: candidate.retrieval_rank)
        kept = {id(candidate) for candidate in by_retrieval[:rerank_depth]}
        whole = [candidate for candidate in found.candidates if id(candidate) in kept]
        without = [candidate for candidate in found.candidates if candidate.image_id not in targets]
        if gallery.collection.stored(sorted(targets)):
            examples += _example(number, whole, is_right=bool(whole) and whole[0].image_id in targets, answerable=True)
        examples += _example(number, without, is_right=False, answerable=False)
        progress(number + 1, len(entries))
    return examples


def examples_of_edits(
    gallery: Gallery,
    *,
    count: int,
    seed: int,
    rerank_depth: int,
    opener: Callable[[str], ImageSource] | None,
    progress: Callable[[int, int], None],
) -> list[MatchExample]:
    """Ask for pictures of the gallery in another colour: once where a program has made that picture, and once not.

    The picture is not written anywhere: it stands where its cosine puts it, and is re-ranked with the others.

    Args:
        gallery: of pictures of one garment or other thing in the middle of each.
        count: queries to make.
        seed: of pictures, colours and texts.
        rerank_depth: candidates to re-rank.
        opener: opens a picture of an attached collection; None for files.
        progress: called with the number done and the number of all.

    Raises:
        InputError: too few pictures can be read and recoloured.
        CirError: as :meth:`Gallery.search`.
    """
    rng = np.random.default_rng(seed)
    sources = _sources(gallery)
    order = rng.permutation(len(sources)).tolist()
    texts, colours = _known(gallery, sources)
    examples: list[MatchExample] = []
    done = 0
    for place in order[: count * _TRIES]:
        if done == count:
            break
        image_id, source = sources[place]
        try:
            picture = load_image(source if opener is None else opener(source))
        except CirError:
            continue
        made = _recoloured(picture, colours, rng)
        if made is None:
            continue
        edited, colour = made
        text = texts[int(rng.integers(len(texts)))].format(c=colour)
        reference = GalleryImage(image_id)
        query = gallery.compose(reference, text)
        found = gallery.search(
            reference, text, limit=rerank_depth, rerank_depth=rerank_depth, exclude_reference=True, min_match=0
        ).candidates
        cosine = float(gallery.compose(edited).vector @ query.vector)
        (scored,) = gallery.rerank(query, [edited]).candidates
        joined = _joined(found, replace(scored, image_id=_EDITED, retrieval_score=cosine), rerank_depth)
        examples += _example(done, joined, is_right=joined[0].image_id == _EDITED, answerable=True)
        examples += _example(done, found, is_right=False, answerable=False)
        done += 1
        progress(done, count)
    if done < count:
        raise InputError(
            f"Only {done} of {len(sources)} pictures could be read and recoloured, of {count} wanted. Give labelled "
            "queries with --queries, or fewer with --edits."
        )
    return examples


def _example(query: int, candidates: Sequence[Candidate], *, is_right: bool, answerable: bool) -> list[MatchExample]:
    features = match_features(candidates)
    return [] if features is None else [MatchExample(query, features, is_right, answerable)]


def _joined(found: Sequence[Candidate], target: Candidate, rerank_depth: int) -> list[Candidate]:
    """Put a picture among the candidates of an answer, where its cosine and its score put it."""
    retrieved = sorted([*found, target], key=lambda candidate: -candidate.retrieval_score)[:rerank_depth]
    ranked = [replace(each, retrieval_rank=rank) for rank, each in enumerate(retrieved, start=1)]
    return sorted(ranked, key=lambda each: inf if each.rerank_score is None else -each.rerank_score)


def _sources(gallery: Gallery) -> list[tuple[str, str]]:
    """List the ids of a gallery's images and where their pictures are, as far as that is known."""
    collection = gallery.collection
    found: list[tuple[str, str]] = []
    after = None
    while records := collection.store.scroll(collection.name, filter=None, limit=_PAGE, after=after):
        known = [collection.layout.known(record) for record in records]
        found += [(image.image_id, image.source) for image in known if image is not None and image.source is not None]
        after = records[-1].point_id
    return found


def _known(gallery: Gallery, sources: Sequence[tuple[str, str]]) -> tuple[list[str], list[NamedColour]]:
    """Return the texts and the colours all of whose words the model knows.

    Raises:
        InputError: there are none, or no picture to ask with.
    """

    def is_known(text: str) -> bool:
        return not gallery.compose(GalleryImage(sources[0][0]), text).notes

    colours = [colour for colour in COLOURS if colour.name not in HELD_OUT_COLOURS] if sources else []
    colours = [colour for colour in colours if is_known(colour.name)]
    texts = [text for text in _TEXTS if colours and is_known(text.format(c=colours[0].name))]
    if not texts:
        raise InputError(
            "The gallery's own pictures cannot be asked for in other colours: no file of them is known, or the model "
            "knows no colours. Give labelled queries with --queries."
        )
    return texts, colours


def _recoloured(picture: Image, colours: Sequence[NamedColour], rng: np.random.Generator) -> tuple[Image, str] | None:
    """Recolour what a picture shows, photograph it anew, and name the colour; None where that fails."""
    scale = min(1.0, _LARGEST_SIDE / max(picture.size))
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    rgb = np.asarray(small)
    lab = lab_of_rgb(rgb)
    mask = find_mask(small, lab)
    if mask is None:
        return None
    for place in rng.permutation(len(colours)).tolist():
        colour = colours[place]
        wanted = np.asarray(colour.lab, np.float32)
        if np.linalg.norm(wanted - mask.lab) < _CLEARLY_OTHER:
            continue
        changed = dressed(lab, mask, Look(wanted, "unknown", "unknown", None), rng)
        if changed is None:
            continue
        alpha = mask.alpha[..., None]
        joined = (rgb * (1 - alpha) + rgb_of_lab(changed) * alpha).astype(np.uint8)
        return photographed(joined, mask, "own", None, size=min(small.size), rng=rng), colour.name
    return None
