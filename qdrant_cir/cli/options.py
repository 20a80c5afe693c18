"""Options that several commands share, and what they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from qdrant_cir.errors import CollectionNotFoundError, InputError

if TYPE_CHECKING:
    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.model.compute import ExecutionProvider
    from qdrant_cir.storage.stores.protocol import Store
    from qdrant_cir.types import Precision

__all__ = [
    "ApiKeyOption",
    "BundleOption",
    "CollectionOption",
    "JsonOption",
    "PathOption",
    "EncoderPrecisionOption",
    "PrecisionOption",
    "ProviderOption",
    "StorePlace",
    "UrlOption",
    "open_bundle",
    "place_of_store",
    "precision_named",
    "provider_named",
]

DEFAULT_PATH = Path("qdrant_cir_data")

CollectionOption: TypeAlias = Annotated[
    str, typer.Option("--collection", "-c", help="Name of the collection.", show_default=False)
]
PathOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--path",
        envvar="QDRANT_CIR_PATH",
        help=f"Folder of the embedded store (Qdrant Edge); {DEFAULT_PATH} where nothing is given.",
        show_default=False,
    ),
]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="QDRANT_URL",
        help="Address of a Qdrant server, instead of --path.",
        show_default=False,
    ),
]
ApiKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--api-key", envvar="QDRANT_API_KEY", help="Key of that server.", show_default=False),
]
BundleOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--bundle", help="Model folder; the bundled model by default.", show_default=False),
]
PrecisionOption: TypeAlias = Annotated[
    str,
    typer.Option(help="What the re-ranker computes in: float32, or float16 or int8 where the bundle holds them."),
]
EncoderPrecisionOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--precision",
        help="What the image encoder computes in: float32, or float16 or int8 where the bundle holds them.",
    ),
]
ProviderOption: TypeAlias = Annotated[
    str,
    typer.Option("--provider", help="Where the graphs run: auto, cpu or cuda."),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is: the folder of an embedded one, or the address and key of a server."""

    path: Path | None
    url: str | None
    api_key: str | None

    @property
    def label(self) -> str:
        """Name the place for messages, without a password."""
        return str(self.path) if self.url is None else _shown(self.url)

    @contextmanager
    def opened(self, *, creates: bool) -> Iterator[Store]:
        """Open the store and close it at the end.

        Args:
            creates: make the folder of an embedded store where it does not exist.

        Raises:
            CollectionNotFoundError: there is no such folder, and it is not to be made.
            StoreError: the store cannot be opened or reached.
        """
        if self.url is None and self.path is not None and not creates and not self.path.is_dir():
            raise CollectionNotFoundError(
                f"There is no store in {self.path.absolute()}, so there is no collection yet. Run "
                "`qdrant-cir index` first, or give the right folder with --path or a server with --url."
            )
        store = self._open()
        try:
            yield store
        finally:
            store.close()

    def _open(self) -> Store:
        if self.url is not None:
            from qdrant_cir.storage.stores.server import ServerStore

            return ServerStore.connect(self.url, self.api_key)
        from qdrant_cir.storage.stores.edge import EdgeStore

        return EdgeStore(self.path or DEFAULT_PATH)


def place_of_store(context: typer.Context, *, path: Path | None, url: str | None, api_key: str | None) -> StorePlace:
    """Decide between folder and server; what stands on the command line outweighs the environment.

    Raises:
        InputError: both were given on the command line, or both in the environment.
    """
    if path is not None and url is not None:
        path_is_typed = _is_typed(context, "path")
        if path_is_typed == _is_typed(context, "url"):
            raise InputError(
                f"Both a folder ({path}) and a server ({_shown(url)}) were given. Give one of --path "
                "(QDRANT_CIR_PATH) and --url (QDRANT_URL)."
            )
        path, url = (path, None) if path_is_typed else (None, url)
    if url is not None:
        return StorePlace(path=None, url=url, api_key=api_key)
    return StorePlace(path=path or DEFAULT_PATH, url=None, api_key=None)


def open_bundle(path: Path | None) -> Bundle:
    """Load a model folder, by default the bundled one. Raises BundleError."""
    from qdrant_cir.model.bundle import load_bundle

    return load_bundle(path)


def provider_named(name: str) -> ExecutionProvider:
    """Read the name of an execution provider. Raises InputError."""
    from qdrant_cir.model.compute import Compute

    return Compute(provider=cast("ExecutionProvider", name)).provider


def precision_named(name: str) -> Precision:
    """Read the name of a precision. Raises InputError."""
    from qdrant_cir.model.compute import Compute

    return Compute(precision=cast("Precision", name)).precision


def _shown(url: str) -> str:
    from qdrant_cir.storage.stores.places import shown_address

    return shown_address(url)


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
