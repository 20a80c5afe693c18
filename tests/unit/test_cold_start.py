"""What one search on the embedded store waits for: no library that it does not use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from qdrant_cir.indexer import Indexer
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.bundle import load_bundle
from qdrant_cir.model.compute import Compute
from qdrant_cir.model.image_encoder import ImageEncoder
from qdrant_cir.storage.collection import Collection
from qdrant_cir.storage.stores.edge import EdgeStore

Color = tuple[int, int, int]
_SEARCH = "import sys; from qdrant_cir.cli import app; app(standalone_mode=False); print(*sorted(sys.modules))"


def test_a_search_in_the_embedded_store_loads_neither_the_servers_client_nor_drawing_code(
    tmp_path: Path, tiny_bundle: Path, write_solid_images: Callable[[Path, Mapping[str, Color]], list[Path]]
) -> None:
    (picture,) = write_solid_images(tmp_path / "pictures", {"red": (255, 0, 0)})
    bundle = load_bundle(tiny_bundle)
    with EdgeStore(tmp_path / "store") as store:
        gallery = Collection.create(store, "colors", bundle)
        record = ImageRecord("red", picture, payload={}, source=None)
        Indexer(gallery, ImageEncoder.open(bundle, Compute("cpu")), bundle).index([record])
    options = ["--path", str(tmp_path / "store"), "--bundle", str(tiny_bundle), "--image", str(picture), "-t", "blue"]
    finished = subprocess.run(
        [sys.executable, "-c", _SEARCH, "search", "-c", "colors", *options], capture_output=True, text=True, check=True
    )
    loaded = set(finished.stdout.split())
    assert {"onnxruntime", "qdrant_edge", "tokenizers"} <= loaded
    assert {"qdrant_client", "grpc", "httpx", "PIL.ImageDraw", "pyarrow"}.isdisjoint(loaded)
