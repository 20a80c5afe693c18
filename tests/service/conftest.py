"""A service over six one-colour pictures in the embedded store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from serving import COLOURS, Service, serving

from qdrant_cir import Gallery, ImageRecord
from qdrant_cir.service.run import Opened
from qdrant_cir.storage.stores import open_store
from qdrant_cir.storage.stores.protocol import Store


@pytest.fixture(scope="session")
def service_bundle(build_tiny_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the re-ranker that explanations need."""
    return build_tiny_bundle(tmp_path_factory.mktemp("service") / "tiny", weighted=True)


@pytest.fixture(scope="session")
def shop(
    service_bundle: Path,
    write_solid_images: Callable[..., list[Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    """An embedded store with the gallery ``shop``."""
    folder = tmp_path_factory.mktemp("shop")
    paths = write_solid_images(folder / "pictures", COLOURS)
    with closing(open_store(folder / "store")) as store:
        with Gallery.create("shop", store=store, bundle=service_bundle) as gallery:
            gallery.index(
                [
                    ImageRecord(
                        path.stem,
                        path,
                        {"color": path.stem, "dark": sum(COLOURS[path.stem]) < 300, "n": place},
                        str(path),
                    )
                    for place, path in enumerate(paths)
                ]
            )
        yield store


@pytest.fixture(scope="session")
def service(shop: Store, service_bundle: Path) -> Iterator[Service]:
    with serving(shop, ["shop"], Opened(bundle=service_bundle)) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made
