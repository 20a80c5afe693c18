"""Options that several commands share, and what they open."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast, get_type_hints

import typer

from qdrant_cir.arguments import checked_seconds
from qdrant_cir.errors import BundleError, CollectionNotFoundError, InputError

if TYPE_CHECKING:
    from qdrant_cir.model.bundle import Bundle
    from qdrant_cir.model.compute import ExecutionProvider
    from qdrant_cir.storage.stores.protocol import Store
    from qdrant_cir.types import Precision

__all__ = [
    "BundleOption",
    "CollectionOption",
    "EncoderPrecisionOption",
    "JsonOption",
    "PrecisionOption",
    "ProviderOption",
    "ShardKeyOption",
    "StoreOptions",
    "StorePlace",
    "VectorOption",
    "open_bundle",
    "packaged_bundle",
    "precision_named",
    "provider_named",
    "shard_key_named",
    "with_options",
]

DEFAULT_PATH = Path("qdrant_cir_data")

CollectionOption: TypeAlias = Annotated[
    str, typer.Option("--collection", "-c", help="Name of the collection, or an alias.", show_default=False)
]
VectorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--vector", help="Attached vector to use; needed only where several are attached.", show_default=False
    ),
]
BundleOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help="photos, drawn, or a model folder; by default the packaged one that made the collection.",
        show_default=False,
    ),
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
ShardKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--shard-key",
        help="Where all writes go in a collection that is sharded by keys; digits alone are a number.",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is: the folder of an embedded one, or the address of a server and how to talk to it."""

    path: Path | None
    url: str | None
    api_key: str | None = None
    grpc_port: int | None = None
    retry_seconds: float | None = None

    @property
    def label(self) -> str:
        """The place for messages, without a password."""
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
        store = self._open(creates=creates)
        try:
            yield store
        finally:
            store.close()

    def _open(self, *, creates: bool) -> Store:
        if self.url is not None:
            from qdrant_cir.storage.stores.retrying import RETRY_SECONDS
            from qdrant_cir.storage.stores.server import ServerStore

            seconds = RETRY_SECONDS if self.retry_seconds is None else self.retry_seconds
            return ServerStore.connect(self.url, self.api_key, grpc_port=self.grpc_port, retry_seconds=seconds)
        from qdrant_cir.storage.stores.edge import EdgeStore

        return EdgeStore(self.path or DEFAULT_PATH, creates=creates)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """The options of every command that opens a store, a field each."""

    context: typer.Context
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="FOLDER",
            envvar="QDRANT_CIR_PATH",
            help=f"Folder of the embedded store (Qdrant Edge); {DEFAULT_PATH} where nothing is given.",
            show_default=False,
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="QDRANT_URL",
            help="Address of a Qdrant server, instead of --path.",
            show_default=False,
        ),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="QDRANT_API_KEY", help="Key of that server.", show_default=False),
    ] = None
    grpc_port: Annotated[
        int | None,
        typer.Option(
            "--grpc-port",
            min=1,
            max=65_535,
            envvar="QDRANT_GRPC_PORT",
            help="Port for gRPC of that server; 6334 is tried where --url names the port 6333 or none.",
            show_default=False,
        ),
    ] = None
    retry_seconds: Annotated[
        float | None,
        typer.Option(
            "--retry-seconds",
            help="How long a failed call of that server is tried again; 60 by default, 0 for one attempt.",
            show_default=False,
        ),
    ] = None

    @property
    def is_named(self) -> bool:
        """Whether a folder or a server was given, on the command line or in the environment."""
        return self.path is not None or self.url is not None

    @property
    def place(self) -> StorePlace:
        """The folder or the server; what stands on the command line outweighs the environment.

        Raises:
            InputError: both were given on the command line, or both in the environment, or a place or a number
                cannot be used.
        """
        if self.retry_seconds is not None:
            checked_seconds(self.retry_seconds, name="--retry-seconds")
        path, url = self.path, self.url
        if path is not None and url is not None:
            path_is_typed = _is_typed(self.context, "path")
            if path_is_typed == _is_typed(self.context, "url"):
                raise InputError(
                    f"Both a folder ({path}) and a server ({_shown(url)}) were given. Give one of --path "
                    "(QDRANT_CIR_PATH) and --url (QDRANT_URL)."
                )
            path, url = (path, None) if path_is_typed else (None, url)
        if url is not None:
            return StorePlace(None, url, self.api_key, self.grpc_port, self.retry_seconds)
        from qdrant_cir.storage.stores.places import folder_of

        # as text, of which an empty one is not the current folder
        return StorePlace(path=DEFAULT_PATH if path is None else folder_of(path), url=None)


Command: TypeAlias = Callable[..., None]


def with_options(
    groups: Mapping[str, type[Any]], *, defaults: Mapping[str, object] | None = None
) -> Callable[[Command], Command]:
    """Replace parameters of a command by the options that are the fields of a dataclass.

    Args:
        groups: the dataclass by the name of the parameter that takes it.
        defaults: of this command, by field, instead of those of the dataclass.
    """

    def decorate(command: Command) -> Command:
        options = [
            option
            for each in inspect.signature(command, eval_str=True).parameters.values()
            for option in (_options_of(groups[each.name], defaults or {}) if each.name in groups else [each])
        ]

        @functools.wraps(command)
        def run_command(**given: Any) -> None:  # noqa: ANN401 - what the options of the command line hold
            joined = {
                name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
                for name, kind in groups.items()
            }
            command(**given, **joined)

        signature = inspect.Signature(options)
        run_command.__signature__ = signature  # type: ignore[attr-defined]
        run_command.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return run_command

    return decorate


def open_bundle(path: Path | None) -> Bundle:
    """Load a packaged model by name or a model folder, by default the packaged one. Raises BundleError."""
    from qdrant_cir.model.bundle import load_bundle

    return load_bundle(path)


def packaged_bundle(fingerprint: str) -> Bundle | None:
    """Load the packaged bundle of a fingerprint, None for another bundle, whose folder is not known."""
    found = (each for each in _packaged() if fingerprint in (each.fingerprint, each.vectors_fingerprint))
    return next(found, None)


def packaged_names() -> set[str]:
    """Return the names that the packaged bundles carry in their manifests, which galleries keep."""
    return {packaged.manifest.name for packaged in _packaged()}


def _packaged() -> Iterator[Bundle]:
    """Load the packaged bundles one by one, without those that cannot be loaded."""
    from qdrant_cir.model.bundle import PACKAGED_BUNDLES, load_bundle

    for name in PACKAGED_BUNDLES:
        try:
            yield load_bundle(name)
        except BundleError:
            continue


def provider_named(name: str) -> ExecutionProvider:
    """Read the name of an execution provider. Raises InputError."""
    from qdrant_cir.model.compute import Compute

    return Compute(provider=cast("ExecutionProvider", name)).provider


def precision_named(name: str) -> Precision:
    """Read the name of a precision. Raises InputError."""
    from qdrant_cir.model.compute import Compute

    return Compute(precision=cast("Precision", name)).precision


def shard_key_named(key: str | None) -> int | str | None:
    """Read a shard key: a number where there are digits alone, else a text."""
    return int(key) if key is not None and key.isascii() and key.isdigit() else key


def _options_of(kind: type[Any], defaults: Mapping[str, object]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = defaults.get(field.name, field.default)
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
            annotation=hints[field.name],
        )


def _shown(url: str) -> str:
    from qdrant_cir.storage.stores.places import shown_address

    return shown_address(url)


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
