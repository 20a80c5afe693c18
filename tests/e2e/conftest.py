"""A drawn catalogue, a service over it, and one browser for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import serving

from qdrant_cir import Gallery
from qdrant_cir.drawn.dataset import DrawnCatalog, sample_drawn
from qdrant_cir.drawn.files import write_drawn
from qdrant_cir.indexing.sources import read_manifest
from qdrant_cir.service.run import Opened
from qdrant_cir.storage.stores import open_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PRODUCTS = 60
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by playwright, whose event loop must end before other tests of this process run."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs browser: playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("needs browser: chromium is not installed")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def catalog() -> DrawnCatalog:
    return sample_drawn(2026, products=PRODUCTS, queries=6)


@pytest.fixture(scope="module")
def pictures(browser: Browser, catalog: DrawnCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the catalogue's pictures, not drawn where no browser would see them."""
    folder = tmp_path_factory.mktemp("catalog")
    write_drawn(catalog, folder)
    return folder / "images"


@pytest.fixture(scope="module")
def service(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service over the gallery ``catalog``."""
    with closing(open_store(tmp_path_factory.mktemp("store"))) as store:
        with Gallery.create("catalog", store=store, bundle="drawn") as gallery:
            gallery.index(read_manifest(pictures.parent / "gallery.csv"))
        with serving(store, ["catalog"], Opened()) as running:
            yield running.address
