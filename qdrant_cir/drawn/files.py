"""A drawn catalogue on disk: pictures, the gallery manifest, and the queries, also in FashionIQ's layout."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from os import PathLike
from pathlib import Path
from threading import Thread

import numpy as np

from qdrant_cir.drawn.dataset import GALLERY_VERSION, DrawnCatalog, draw_item, sample_drawn
from qdrant_cir.drawn.draw import DRAWING_VERSION
from qdrant_cir.drawn.edit import Split
from qdrant_cir.drawn.fashioniq_files import fashioniq_files
from qdrant_cir.drawn.language import describe_scene
from qdrant_cir.drawn.scene import Scene, main_part
from qdrant_cir.errors import InputError

__all__ = ["GALLERY_COLUMNS", "picture_path", "write_drawn"]

GALLERY_COLUMNS = ("image_id", "file", "family", "title", "color", "pattern", "price")
"""Columns of ``gallery.csv``; ``color`` and ``pattern`` are the main part's."""

_CHUNK = 64
_WORKERS = 2
_TITLE_STREAM = 11

_drawn: DrawnCatalog | None = None
"""The catalogue that this worker process draws, set when the process starts."""


def _start_worker(seed: int, products: int, queries: int, split: Split) -> None:
    global _drawn
    Thread(target=_end_with_parent, daemon=True).start()
    _drawn = sample_drawn(seed, products=products, queries=queries, split=split)


def _end_with_parent() -> None:
    """End this worker when its parent process is gone; a pool's workers outlive a parent that was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def picture_path(folder: Path, image_id: str) -> Path:
    """Return the path of a picture in a catalogue's folder."""
    return folder / _picture_name(image_id)


def _picture_name(image_id: str) -> str:
    return f"images/{image_id}.jpg"


def _write_atomically(path: Path, content: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(content, encoding="utf-8", newline="")
    partial.replace(path)


def _draw_files(drawn: DrawnCatalog, folder: Path, indices: list[int], size: int) -> int:
    for index in indices:
        path = picture_path(folder, drawn.items[index].image_id)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        image = draw_item(drawn, index, size=size).image
        image.save(partial, format="JPEG", quality=95, subsampling=0)
        partial.replace(path)
    return len(indices)


def _draw_chunk(folder: Path, indices: list[int], size: int) -> int:
    if _drawn is None:
        raise InputError("This process was not started to draw a catalogue; call write_drawn instead.")
    return _draw_files(_drawn, folder, indices, size)


def _price(scene: Scene, rng: np.random.Generator) -> str:
    low, high = scene.spec.prices
    return f"{low + int(rng.random() * (high - low))}.{(0, 50, 90, 99)[int(rng.random() * 4)]:02d}"


def _gallery_rows(drawn: DrawnCatalog) -> list[list[str]]:
    rows = []
    for index, item in enumerate(drawn.items):
        rng = np.random.default_rng([drawn.seed, index, _TITLE_STREAM])
        main, title = main_part(item.scene), describe_scene(item.scene, rng)
        price = _price(item.scene, rng)
        name = _picture_name(item.image_id)
        rows.append([item.image_id, name, item.scene.family, title, main.color, main.pattern, price])
    return rows


def _write_tables(drawn: DrawnCatalog, folder: Path) -> None:
    partial = folder / "gallery.csv.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(GALLERY_COLUMNS)
        writer.writerows(_gallery_rows(drawn))
    partial.replace(folder / "gallery.csv")
    lines = [
        json.dumps(
            {
                "query_id": query.query_id,
                "reference": query.reference_id,
                "modification_text": query.modification_text,
                "targets": list(query.target_ids),
                "kind": query.kind,
                "combination": "unseen" if query.is_unseen else "seen",
            }
        )
        for query in drawn.queries
    ]
    _write_atomically(folder / "queries.jsonl", "\n".join(lines) + "\n")
    for path, content in fashioniq_files(drawn).items():
        (folder / path).parent.mkdir(exist_ok=True)
        _write_atomically(folder / path, content)


def _claim_folder(drawn: DrawnCatalog, folder: Path, size: int) -> None:
    """Write what the catalogue is into the folder; refuse a folder that holds another."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    record = {
        "drawing_version": DRAWING_VERSION,
        "gallery_version": GALLERY_VERSION,
        "seed": drawn.seed,
        "split": drawn.split,
        "products": len(drawn.items),
        "queries": len(drawn.queries),
        "size": size,
    }
    path = folder / "catalog.json"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged or cannot be read: {error}. Choose another folder.") from error
        if found != record:
            raise InputError(
                f"{folder} already holds another catalogue: expected {record}, found {found}. "
                "Choose another folder, or give the same numbers to complete that one."
            )
    else:
        _write_atomically(path, json.dumps(record))


def write_drawn(
    drawn: DrawnCatalog,
    folder: str | PathLike[str],
    *,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write pictures, ``gallery.csv``, ``queries.jsonl`` and ``catalog.json`` into the folder.

    The queries are also written in FashionIQ's layout, one category per family, into ``captions`` and ``image_splits``;
    both layouts share the pictures.

    Existing pictures are kept, so that the same call completes an interrupted run. Two processes draw when there are
    many pictures. As with every process pool, a script that calls this needs an ``if __name__ == "__main__":`` guard.

    Args:
        drawn: what to write, made by ``sample_drawn``.
        folder: created if missing.
        size: side of the pictures in pixels.
        progress: called with the number of finished pictures and of all, after every few dozen.

    Raises:
        InputError: the folder holds another catalogue.
    """
    root = Path(folder)
    _claim_folder(drawn, root, size)
    total = len(drawn.items)
    missing = [i for i in range(total) if not picture_path(root, drawn.items[i].image_id).exists()]
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    done = total - len(missing)
    if progress is not None:
        progress(done, total)
    if len(chunks) <= _WORKERS:
        for chunk in chunks:
            done += _draw_files(drawn, root, chunk, size)
            if progress is not None:
                progress(done, total)
    else:
        arguments = (drawn.seed, total, len(drawn.queries), drawn.split)
        with ProcessPoolExecutor(
            _WORKERS, mp_context=get_context("spawn"), initializer=_start_worker, initargs=arguments
        ) as pool:
            waiting = [pool.submit(_draw_chunk, root, chunk, size) for chunk in chunks]
            for future in waiting:
                done += future.result()
                if progress is not None:
                    progress(done, total)
    _write_tables(drawn, root)
