"""The public surface: these names, no others, and an import that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import qdrant_cir

PUBLIC = {
    "AddressLimits",
    "AsyncGallery",
    "AsyncRetriever",
    "Bundle",
    "BundleError",
    "BusyError",
    "Candidate",
    "CellEffects",
    "CheckReport",
    "CirError",
    "CollectionError",
    "CollectionInfo",
    "CollectionMismatchError",
    "CollectionNotFoundError",
    "CollectionOptions",
    "ComposedQuery",
    "Effort",
    "EffortCalibration",
    "EvaluationError",
    "Explanation",
    "FailedImage",
    "Finding",
    "Gallery",
    "GalleryImage",
    "ImageError",
    "ImageRecord",
    "IndexProgress",
    "IndexReport",
    "Indexer",
    "IndexingError",
    "InputError",
    "MissingExtraError",
    "PictureLimits",
    "ProviderError",
    "Query",
    "Retriever",
    "SearchProgress",
    "SearchResult",
    "SheetRow",
    "StoreError",
    "StoreLockedError",
    "StoreUnavailableError",
    "TooLargeError",
    "Timings",
    "WordEffect",
    "TokensError",
    "__version__",
    "attach",
    "attach_async",
    "connect",
    "connect_async",
    "default_bundle_path",
    "draw_contact_sheet",
    "draw_explanation",
    "load_bundle",
    "read_folder",
    "read_images",
    "read_manifest",
}


def test_all_names_exactly_the_public_ones() -> None:
    assert set(qdrant_cir.__all__) == PUBLIC
    assert len(qdrant_cir.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    value = getattr(qdrant_cir, name)
    assert name == "__version__" or (value.__doc__ or "").strip()


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Retriver'"):
        qdrant_cir.Retriver  # noqa: B018


def test_star_import_and_dir_give_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from qdrant_cir import *", names)
    assert set(names) >= PUBLIC
    assert dir(qdrant_cir) == sorted(PUBLIC)


@pytest.mark.parametrize("module", ["qdrant_cir", "qdrant_cir.errors", "qdrant_cir.cli"])
def test_importing_loads_no_library_that_takes_time(module: str) -> None:
    heavy = "numpy onnxruntime qdrant_client qdrant_edge PIL tokenizers torch pyarrow pydantic"
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(heavy.split()) & set(loaded) == set()
