"""How a new collection lies on a server: shards, copies, memory, quantization, limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qdrant_cir.arguments import shown
from qdrant_cir.errors import InputError

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["CollectionOptions", "check_options", "differences", "of_companion"]

_OF_COMPANION = (
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "strict_mode_config",
    "payload",
)
"""What the collection of tokens takes as well: it has no vectors."""

_UNSAID: Mapping[str, object] = {"sharding_method": "auto", "on_disk": False}
"""What a server means where it names no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOptions:
    """Settings of a new collection on a server, passed to ``create_collection`` as they are; None leaves the server's.

    Attributes:
        shard_number: shards.
        sharding_method: automatic, or custom with shard keys.
        replication_factor: copies of every shard; with 2, one server of a cluster may stop.
        write_consistency_factor: copies that must confirm a write.
        on_disk: whether the vectors lie on the disk.
        on_disk_payload: whether the payload does.
        hnsw_config: of the graph.
        optimizers_config: of the segments.
        wal_config: of the log.
        quantization_config: of the vectors.
        strict_mode_config: limits of calls.
        payload: how much of the payload is kept in memory; takes a client and a server that know it.
    """

    shard_number: int | None = None
    sharding_method: models.ShardingMethod | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk: bool | None = None
    on_disk_payload: bool | None = None
    hnsw_config: models.HnswConfigDiff | None = None
    optimizers_config: models.OptimizersConfigDiff | None = None
    wal_config: models.WalConfigDiff | None = None
    quantization_config: models.QuantizationConfig | None = None
    strict_mode_config: models.StrictModeConfig | None = None
    payload: object | None = None

    @property
    def given(self) -> dict[str, object]:
        """What is not left to the server, by the names of ``create_collection``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Read options from a JSON object with the names of ``create_collection``, as Qdrant's REST API takes them.

        Raises:
            InputError: the file cannot be read, or an option or its value is unknown.
        """
        from pydantic import ValidationError
        from qdrant_client import models

        try:
            found = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"The options of collections cannot be read from {path}: {error}.") from error
        names = [each.name for each in fields(cls)]
        if not isinstance(found, dict) or set(found) - set(names):
            unknown = sorted(set(found) - set(names)) if isinstance(found, dict) else found
            raise InputError(f"{path} holds {unknown!r:.200}; expected a JSON object with some of {', '.join(names)}.")
        on_disk = found.pop("on_disk", None)
        try:
            read = models.CreateCollection.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: {place}: {first['msg']}.") from error
        if on_disk is not None and not isinstance(on_disk, bool):
            raise InputError(f"{path}: on_disk is {on_disk!r:.40}; expected true or false.")
        return cls(on_disk=on_disk, **{name: getattr(read, name) for name in found})


def check_options(options: CollectionOptions) -> None:
    """Refuse what are no options. Raises InputError."""
    if not isinstance(options, CollectionOptions):
        raise InputError(f"options is {shown(options)}; expected CollectionOptions.")


def of_companion(placement: Mapping[str, object]) -> dict[str, object]:
    """Return what of a collection's options its collection of tokens takes: without what is said of vectors."""
    return {name: value for name, value in placement.items() if name in _OF_COMPANION and value is not None}


def differences(given: Mapping[str, object], standing: Mapping[str, object]) -> list[str]:
    """Describe the options that a collection was not made with: ``shard_number is 2, not 6``.

    Args:
        given: options that are wanted. Of an object, only the fields that are set count.
        standing: those of the collection; what is not named there is not known.
    """
    found = []
    for name, value in given.items():
        if name in standing:
            now = _plain(standing[name])
            found += _unlike(name, _UNSAID.get(name) if now is None else now, _plain(value))
    return found


def _plain(value: object) -> object:
    """Return an option as JSON, without the fields that are not set."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return getattr(value, "value", value)


def _unlike(name: str, now: object, wanted: object) -> list[str]:
    if isinstance(now, dict) and isinstance(wanted, dict):
        return [each for key, value in wanted.items() for each in _unlike(f"{name}.{key}", now.get(key), value)]
    return [] if now == wanted else [f"{name} is {_shown(now)}, not {_shown(wanted)}"]


def _shown(value: object) -> str:
    return "not set" if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
