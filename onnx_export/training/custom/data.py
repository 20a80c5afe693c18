"""The user's triplets, by image ids: FashionIQ's and CIRR's layouts and the JSONL of ``evaluate own``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from onnx_export.errors import TrainingError
from onnx_export.training.features import PictureFeatures
from onnx_export.training.triplets import Triplet, TripletSet
from qdrant_cir.errors import InputError
from qdrant_cir.evaluation.datasets.annotation_files import find_file, read_json, read_records
from qdrant_cir.evaluation.datasets.benchmark import gallery_record
from qdrant_cir.evaluation.datasets.custom import QUERY_FILE, read_custom
from qdrant_cir.evaluation.datasets.fashioniq import join_captions
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.types import GalleryImage

DataKind = Literal["fashioniq", "cirr", "own"]


@dataclass(frozen=True, slots=True)
class NamedTriplet:
    """One query with its right answers, by image ids.

    Attributes:
        reference: the reference image.
        targets: right answers, at least one.
        near: near misses.
        texts: paraphrases of the modification text, at least one.
    """

    reference: str
    targets: tuple[str, ...]
    near: tuple[str, ...]
    texts: tuple[str, ...]

    def images(self) -> set[str]:
        """Return the pictures that the triplet cannot do without."""
        return {self.reference, *self.targets}


@dataclass(frozen=True, slots=True)
class CustomData:
    """Pictures and the triplets over them.

    Attributes:
        pictures: every picture, by image id, in the order of its row.
        triplets: the queries.
        excludes_reference: the reference is never an answer and is left out of rankings (CIRR).
    """

    pictures: Mapping[str, ImageRecord]
    triplets: tuple[NamedTriplet, ...]
    excludes_reference: bool = False

    def without(self, unreadable: Iterable[str]) -> CustomData:
        """Return the data without some pictures and without the triplets that need them."""
        missing = set(unreadable)
        return CustomData(
            {image_id: record for image_id, record in self.pictures.items() if image_id not in missing},
            tuple(triplet for triplet in self.triplets if not triplet.images() & missing),
            self.excludes_reference,
        )


def read_custom_data(kind: DataKind, root: Path, *, queries: Path | None = None, split: str = "train") -> CustomData:
    """Read triplets to train on.

    Args:
        kind: the layout.
        root: the data set's folder; for ``own``, a folder of pictures or a manifest.
        queries: the JSONL file of ``own``; by default ``queries.jsonl`` in the root.
        split: of FashionIQ's and CIRR's files.

    Raises:
        InputError: a file is missing or not as published.
        TrainingError: a line names a picture that is not in the gallery.
    """
    if kind == "own":
        data = _custom(root, queries if queries is not None else root / QUERY_FILE)
    else:
        data = _fashioniq(root, split) if kind == "fashioniq" else _cirr(root, split)
    for triplet in data.triplets:
        unknown = sorted({*triplet.images(), *triplet.near} - data.pictures.keys())
        if unknown:
            raise TrainingError(
                f"A query on {triplet.reference!r} names {unknown[0]!r}, which is no picture of {root}. Expected an "
                "image id, as `qdrant-cir index` assigns it."
            )
    return data


def triplet_set(data: CustomData, features: PictureFeatures, triplets: Iterable[NamedTriplet]) -> TripletSet:
    """Return triplets as rows of the features of ``data.pictures``."""
    rows = {image_id: row for row, image_id in enumerate(data.pictures)}
    found = [
        Triplet(
            reference=rows[triplet.reference],
            targets=tuple(rows[name] for name in triplet.targets),
            near=tuple(rows[name] for name in triplet.near if name in rows),
            texts=triplet.texts,
        )
        for triplet in triplets
    ]
    return TripletSet(found, features, np.arange(len(rows), dtype=np.int64))


def is_held_out(triplet: NamedTriplet, share: float) -> bool:
    """Return whether a triplet is held out for validation. Its reference decides, so no reference is on both sides."""
    number = int.from_bytes(hashlib.sha256(triplet.reference.encode()).digest()[:8], "big")
    return number < share * 2**64


def _custom(root: Path, queries: Path) -> CustomData:
    benchmark = read_custom(queries, gallery=root)
    part = benchmark.parts[0]
    pictures = {record.image_id: record for record in part.gallery or ()}
    gathered: dict[tuple[str, frozenset[str]], list[str]] = {}
    for query in part.queries:
        if isinstance(query.reference, GalleryImage):
            reference = str(query.reference.image_id)
        else:
            reference = str(query.reference)
            pictures.setdefault(reference, gallery_record(reference, Path(reference)))
        key = (reference, benchmark.truth[part.name][query.query_id].targets)
        gathered.setdefault(key, []).append(query.modification_text)
    triplets = tuple(
        NamedTriplet(reference, tuple(sorted(targets)), () if reference in targets else (reference,), _unique(texts))
        for (reference, targets), texts in gathered.items()
    )
    return CustomData(pictures, triplets)


def _fashioniq(root: Path, split: str) -> CustomData:
    files = sorted((root / "captions").glob(f"cap.*.{split}.json"))
    if not files:
        raise InputError(
            f"There is no {root / 'captions' / f'cap.CATEGORY.{split}.json'}. Give the folder that holds the published "
            "files, or another --split."
        )
    pictures: dict[str, ImageRecord] = {}
    triplets: list[NamedTriplet] = []
    for file in files:
        category = file.name.removeprefix("cap.").removesuffix(f".{split}.json")
        folders = [root / "images", root / "images" / category, root / "resized_image", root]
        found = [
            NamedTriplet(
                entry.text("candidate"),
                (entry.text("target"),),
                () if entry.text("candidate") == entry.text("target") else (entry.text("candidate"),),
                _unique((join_captions(captions), join_captions(captions[::-1]))),
            )
            for entry in read_records(file)
            if join_captions(captions := entry.texts("captions"))
        ]
        triplets += found
        names = [name for triplet in found for name in (triplet.reference, *triplet.targets)]
        for name in dict.fromkeys([*_listed(root / "image_splits" / f"split.{category}.{split}.json"), *names]):
            pictures.setdefault(name, gallery_record(name, find_file(folders, name)))
    return CustomData(pictures, tuple(triplets))


def _listed(path: Path) -> list[str]:
    """Read the list of a gallery, empty where there is no file: training does not need it."""
    ids = read_json(path) if path.is_file() else []
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise InputError(f"{path}: expected a list of product numbers")
    return ids


def _cirr(root: Path, split: str) -> CustomData:
    annotations = root if (root / "captions").is_dir() else root / "cirr"
    path = annotations / "image_splits" / f"split.rc2.{split}.json"
    paths = read_json(path)
    if not isinstance(paths, dict) or not paths or not all(isinstance(relative, str) for relative in paths.values()):
        raise InputError(f"{path}: expected an object that gives every image its path")
    folders = [root, root / "images", root / "img_raw"]
    first = next(iter(paths.values()))
    folder = next((folder for folder in folders if (folder / first).is_file()), root)
    triplets = []
    for entry in read_records(annotations / "captions" / f"cap.rc2.{split}.json"):
        target = entry.text("target_hard")
        members = entry.inner("img_set").texts("members")
        near = tuple(dict.fromkeys(name for name in (*members, entry.text("reference")) if name != target))
        triplets.append(NamedTriplet(entry.text("reference"), (target,), near, (entry.text("caption"),)))
    pictures = {image_id: gallery_record(image_id, folder / relative) for image_id, relative in paths.items()}
    return CustomData(pictures, tuple(triplets), excludes_reference=True)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
