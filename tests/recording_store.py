"""A store of dictionaries that writes down every call, for laws about the order and the size of calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from qdrant_client.models import Filter

from qdrant_cir.storage.stores.protocol import (
    PLAIN,
    VECTOR_NAME,
    CollectionSpec,
    Hit,
    ReadOptions,
    Record,
    StoredPoint,
)
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its method, the collection, and the stored form of what it wrote, in bytes."""

    method: str
    name: str
    written: int = 0


class RecordingStore:
    """A :class:`~qdrant_cir.storage.stores.protocol.Store` in memory; it refuses nothing and knows no filters."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.points: dict[str, dict[PointId, StoredPoint]] = {}
        self._specs: dict[str, CollectionSpec] = {}

    def collection_names(self) -> list[str]:
        return sorted(self._specs)

    def describe(self, name: str) -> CollectionSpec | None:
        return self._specs.get(name)

    def create(self, name: str, spec: CollectionSpec) -> None:
        self.calls.append(Call("create", name))
        self._specs[name], self.points[name] = spec, {}

    def update_metadata(self, name: str, values: JsonObject) -> None:
        self.calls.append(Call("update_metadata", name))
        spec = self._specs[name]
        self._specs[name] = replace(spec, metadata={**spec.metadata, **values})

    def drop(self, name: str) -> None:
        self.calls.append(Call("drop", name))
        del self._specs[name], self.points[name]

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        self.calls.append(Call("create_payload_index", name))

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        self.calls.append(Call("upsert", name, sum(map(stored_bytes, points))))
        self.points[name].update((point.point_id, point) for point in points)

    def resolve(self, name: str) -> str:
        return name

    def set_payloads(self, name: str, payloads: Mapping[PointId, Mapping[str, JsonValue]]) -> None:
        self.calls.append(Call("set_payloads", name))
        for id, payload in payloads.items():
            point = self.points[name][id]
            self.points[name][id] = StoredPoint(id, point.vector, {**point.payload, **payload})

    def delete_payloads(self, name: str, fields: Mapping[PointId, Sequence[str]]) -> None:
        self.calls.append(Call("delete_payloads", name))
        for id, keys in fields.items():
            point = self.points[name][id]
            kept = {key: value for key, value in point.payload.items() if key not in keys}
            self.points[name][id] = StoredPoint(id, point.vector, kept)

    def query(
        self,
        name: str,
        vector: Float32,
        *,
        limit: int,
        filter: Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Hit]:
        self.calls.append(Call("query", name))
        hits = [Hit(id, _cosine(vector, point.vector), dict(point.payload)) for id, point in self._those(name, filter)]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def fetch(
        self,
        name: str,
        point_ids: Sequence[PointId],
        *,
        with_vectors: bool,
        fields: Sequence[str] | None = None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Record]:
        self.calls.append(Call("fetch", name))
        found = [self.points[name][point_id] for point_id in point_ids if point_id in self.points[name]]
        return [Record(p.point_id, dict(p.payload), p.vector if with_vectors else None) for p in found]

    def scroll(
        self,
        name: str,
        *,
        filter: Filter | None,
        limit: int,
        after: PointId | None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        self.calls.append(Call("scroll", name))
        behind = [point for id, point in self._those(name, filter) if after is None or str(id) > str(after)]
        return [Record(point.point_id, dict(point.payload), None) for point in behind[:limit]]

    def delete(self, name: str, point_ids: Sequence[PointId]) -> None:
        self.calls.append(Call("delete", name))
        for point_id in point_ids:
            self.points[name].pop(point_id, None)

    def count(self, name: str, filter: Filter | None) -> int:
        return len(self._those(name, filter))

    def counts_exactly(self, name: str) -> bool:
        return True

    def optimize(self, name: str) -> None:
        self.calls.append(Call("optimize", name))

    def close(self) -> None:
        self.calls.append(Call("close", ""))

    def calls_of(self, *methods: str) -> list[Call]:
        """Choose the calls of some methods, in order."""
        return [call for call in self.calls if call.method in methods]

    def _those(self, name: str, filter: Filter | None) -> list[tuple[PointId, StoredPoint]]:
        if filter is not None:
            raise NotImplementedError("the recording store evaluates no filters")
        return sorted(self.points[name].items(), key=lambda item: str(item[0]))


def stored_bytes(point: StoredPoint) -> int:
    """Measure a point as JSON, which is what a server is sent and an embedded store logs."""
    vector = [] if point.vector is None else point.vector.tolist()
    return len(json.dumps([str(point.point_id), vector, dict(point.payload)], ensure_ascii=False).encode())


def _cosine(left: Float32, right: Float32 | None) -> float:
    if right is None:
        raise TypeError("the collection holds no vectors")
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
