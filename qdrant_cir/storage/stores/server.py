"""A Qdrant server, a cloud cluster, or the client's own ``:memory:``, through a given client."""

from __future__ import annotations

import logging
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import Any, Self, TypeVar, cast
from uuid import UUID

import numpy as np
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.context_headers import headers
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_cir.errors import (
    CollectionError,
    CollectionNotFoundError,
    InputError,
    StoreError,
    StoreUnavailableError,
    TooLargeError,
)
from qdrant_cir.storage.stores.bridge import ClientBridge
from qdrant_cir.storage.stores.checks import (
    check_given_name,
    check_index,
    check_limit,
    check_name,
    check_path,
    check_query_vector,
    checked_payloads,
    checked_points,
    needs_index,
)
from qdrant_cir.storage.stores.connection import connect, place_of
from qdrant_cir.storage.stores.errors import (
    CLIENT_ERRORS,
    NotAppliedError,
    detail_of,
    has_answer,
    is_transient,
    most_results,
    says_exists,
    says_status,
    translated,
)
from qdrant_cir.storage.stores.filters import text_fields
from qdrant_cir.storage.stores.memory import indexes_of, is_local, shared_memory, turn_of
from qdrant_cir.storage.stores.protocol import (
    PLAIN,
    VECTOR_NAME,
    CollectionSpec,
    Hit,
    HitGroup,
    ReadOptions,
    Record,
    StoredPoint,
    VectorSpec,
    behind,
    hnsw_ef,
)
from qdrant_cir.storage.stores.retrying import RETRY_SECONDS, Retries, check_retry_seconds
from qdrant_cir.storage.stores.versions import check_versions, checks_itself, raise_if_too_old
from qdrant_cir.types import Float32, JsonObject, JsonValue, PointId

__all__ = ["ServerStore"]

_logger = logging.getLogger(__name__)

_OPERATIONS = 500
"""Payloads that one call changes."""

_PLACEMENT = (
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
    "payload",
)

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")

_SERVER_TOKEN = "_cir_server"
"""Key of a new collection's metadata: what is written over REST must be read over gRPC."""

_LAG = (0.1, 0.2, 0.4, 0.8)
"""Seconds that another server of the cluster may take to learn of a new collection."""

_UNCOMPRESSED = {"Accept-Encoding": "identity"}


class ServerStore:
    """A :class:`~qdrant_cir.storage.stores.protocol.Store` behind a ``QdrantClient``.

    Threads may share it. Calls of ``:memory:``, which is not made for several threads, take turns. A call that
    fails in a way that is likely to pass is made again after growing pauses, read or write.
    """

    def __init__(
        self,
        client: QdrantClient,
        *,
        retry_seconds: float = RETRY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a client, which stays open.

        Args:
            client: :func:`qdrant_cir.storage.stores.connect` makes one with the right settings.
            retry_seconds: how long one call is tried again; 0 for never. A server that has never answered is
                given up after two seconds, because its address is probably wrong.
            sleep: waits so many seconds.
            clock: seconds that pass.

        Raises:
            InputError: ``retry_seconds`` is not a number of seconds.
        """
        check_retry_seconds(retry_seconds)
        self._client = client
        self._owns_client = False
        self._place = place_of(client)
        self._turn = turn_of(client)
        self._companions: dict[str, str] = {}
        self._retries = Retries(self._place, retry_seconds, sleep=sleep, clock=clock, worded=self._worded)
        self._reads_over_rest = _may_compress(client)
        self._known: dict[tuple[str, str], VectorSpec | None] = {}
        self._versions_are_checked = checks_itself(client)
        self._text_fields: dict[str, set[str]] = {}
        self._shard_key: int | str | None = None
        self._has_keys: dict[str, bool] = {}
        self._without_keys: set[str] = set()
        self._roughly_counted: set[str] = set()
        self._is_one_server = is_local(client) or not client.init_options.get("prefer_grpc")

    @classmethod
    def over_async(
        cls,
        client: AsyncQdrantClient,
        loop: AbstractEventLoop,
        *,
        retry_seconds: float = RETRY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Make a store over a client that lives on an event loop; the store is called from other threads."""
        bridge = cast("QdrantClient", ClientBridge(client, loop))
        return cls(bridge, retry_seconds=retry_seconds, sleep=sleep, clock=clock)

    @classmethod
    def in_memory(cls) -> Self:
        """Make a store in the memory of this process: one for all, until the process ends."""
        return cls(shared_memory())

    @classmethod
    def connect(
        cls,
        url: str,
        api_key: str | None = None,
        *,
        grpc_port: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> Self:
        """Make a store with a client of its own, closed with it. Raises InputError if it is not an address."""
        check_retry_seconds(retry_seconds)
        store = cls(connect(url, api_key, grpc_port=grpc_port), retry_seconds=retry_seconds)
        store._owns_client = True
        return store

    def with_shard_key(self, key: int | str) -> Self:
        """Return this store with writes that go to the shards of a key, in collections that are sharded by keys."""
        keyed = copy(self)
        keyed._shard_key = key
        return keyed

    def create_shard_key(self, name: str) -> None:
        """Make the shards of the store's key in a collection that is sharded by keys; may be repeated."""
        key = self._key_for(name)
        if key is not None:
            with suppress(CollectionError):  # it exists
                self._call(name, lambda: self._client.create_shard_key(name, key))

    def _key_for(self, name: str) -> int | str | None:
        """Return the key that writes to a collection need: other collections refuse one."""
        if self._shard_key is None:
            return None
        if name not in self._has_keys:
            params = self._call(name, lambda: self._client.get_collection(name)).config.params
            self._has_keys[name] = params.sharding_method == models.ShardingMethod.CUSTOM
            if not self._has_keys[name] and name not in {*self._without_keys, *self._companions}:
                self._without_keys.add(name)
                _logger.warning("%s is not sharded by keys: the shard key %r is not used.", name, self._shard_key)
        return self._shard_key if self._has_keys[name] else None

    def collection_names(self) -> list[str]:
        """List all collections, sorted."""
        return _names_of(self._call(None, self._client.get_collections))

    def name_companion(self, companion: str, collection: str | None) -> None:
        """Let errors about a companion name the collection that it belongs to, which users know; None: to none."""
        if collection is None:
            self._companions.pop(companion, None)
        else:
            self._companions[companion] = collection

    def _worded(self, text: str) -> str:
        """Return a server's words with the names of companions as users know them."""
        for companion, collection in self._companions.items():
            text = text.replace(companion, f"{collection} (tokens)")
        return text

    def describe(self, name: str) -> CollectionSpec | None:
        """Return what a collection is made of, or None where there is none of that name."""
        if not self._call(name, lambda: self._client.collection_exists(name)):
            return None
        info = self._call(name, lambda: self._client.get_collection(name))
        spec = _spec_of(info)
        if not is_local(self._client):
            spec = replace(spec, placement=_placement_of(info.config))
        # a search that follows need not ask again
        self._forget(name)
        self._known |= {(name, vector): found for vector, found in spec.vectors.items()}
        return spec

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection.

        Until REST and gRPC are known to be one server, it is made over REST, and gRPC must read a token of it.

        Raises:
            CollectionError: one of that name exists.
            StoreError: the server is too old to keep metadata, or REST and gRPC are two servers.
        """
        check_name(name)
        placement: dict[str, Any] = dict(spec.placement)
        on_disk = placement.pop("on_disk", None)
        vectors = {}
        if spec.vector_size is not None:
            vectors[VECTOR_NAME] = models.VectorParams(
                size=spec.vector_size, distance=models.Distance.COSINE, on_disk=on_disk
            )
        attempts = 0
        over_rest = not self._is_one_server
        if over_rest:
            spec = replace(spec, metadata={**spec.metadata, _SERVER_TOKEN: token_hex(16)})

        def make() -> None:
            nonlocal attempts, over_rest
            attempts += 1
            if over_rest:
                wanted = models.CreateCollection(vectors=vectors, metadata=spec.metadata, **placement)
                try:
                    self._client.http.collections_api.create_collection(collection_name=name, create_collection=wanted)
                except (ResponseHandlingException, UnexpectedResponse) as error:
                    if says_exists(error) or not _may_go_on_over_grpc(self._client, error):
                        raise
                    # REST is closed, or something else
                    over_rest = False
                else:
                    return
            self._client.create_collection(name, vectors_config=vectors, metadata=spec.metadata, **placement)

        try:
            self._call(name, make)
        except CollectionError:
            if over_rest and self.describe(name) is None:
                raise self._two_servers() from None
            # an earlier attempt may have made it although its answer was lost
            if attempts == 1 or self.describe(name) != spec or self.scroll(name, filter=None, limit=1, after=None):
                raise
        self._forget(name)
        made = self.describe(name)
        for pause in _LAG if over_rest else ():
            if made is not None:
                break
            self._retries.sleep(pause)
            made = self.describe(name)
        if over_rest and (made is None or (made.metadata and made.metadata != spec.metadata)):
            self._call(name, lambda: self._client.http.collections_api.delete_collection(collection_name=name))
            raise self._two_servers()
        if made is None or made.metadata != spec.metadata:
            self.drop(name)
            raise StoreError(
                f"{self._place} does not keep metadata with a collection, as servers do from version 1.16 on. Upgrade "
                "it; the new collection was removed again."
            )
        self._is_one_server |= over_rest
        try:
            self._check_one_server(name)
        except StoreError:
            self.drop(name)
            raise

    def update_metadata(self, name: str, values: JsonObject) -> None:
        """Set top-level keys of a collection's metadata; the others stay."""
        self._call(name, lambda: self._client.update_collection(name, metadata=values))

    def drop(self, name: str) -> None:
        """Remove a collection and all its points; nothing happens where there is none."""
        self._forget(name)
        if is_local(self._client):
            indexes_of(self._client).pop(name, None)
        self._call(name, lambda: self._client.delete_collection(name))

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        """Index a payload field by a kind; as :meth:`Store.create_payload_index`."""
        check_index(field, kind)
        self._call(name, lambda: self._client.get_collection(name))
        if is_local(self._client):
            indexes_of(self._client).setdefault(name, {})[field] = kind
        else:
            # with phrases, which a filter may look for
            phrases = models.TextIndexParams(type=models.TextIndexType.TEXT, phrase_matching=True)
            schema = phrases if kind == "text" else models.PayloadSchemaType(kind)
            self._call(name, lambda: self._client.create_payload_index(name, field, field_schema=schema, wait=True))

    def upsert(self, name: str, points: Sequence[StoredPoint]) -> None:
        """Write points, replacing those of the same id; visible and durable when it returns.

        Raises:
            InputError: a vector or payload cannot be stored; nothing of this call is written then.
            TooLargeError: a point is larger than the server takes; all others are written.
        """
        points = checked_points(points, name=name, size=_size(self._vector(name, VECTOR_NAME)))
        structs = [_point_struct(point) for point in points]
        write = partial(self._client.upsert, shard_key_selector=self._key_for(name))
        self._write_all(name, structs, lambda part: write(name, part, wait=True), _id_of_struct)

    def resolve(self, name: str) -> str:
        """Return the name of the collection that an alias stands for; any other name as it is. Raises InputError."""
        check_given_name(name)
        found = self._call(None, self._client.get_aliases).aliases
        return {alias.alias_name: alias.collection_name for alias in found}.get(name, name)

    def add_vector(self, name: str, vector: str, spec: VectorSpec) -> None:
        """Add a named vector to an existing collection; its points do not have it yet. May be repeated.

        Raises:
            InputError: ``:memory:`` cannot add a vector that holds several.
            StoreError: the server or the client is too old.
        """
        create = getattr(self._client, "create_vector_name", None)
        if create is None:
            raise StoreError(
                "This qdrant-client cannot add a vector to a collection. Install qdrant-client 1.18 or newer."
            )
        if spec.is_multi and is_local(self._client):
            raise InputError(
                "A collection in memory cannot get a vector with several values per point afterwards. Declare it when "
                "the collection is made, or use a server or the embedded store."
            )
        several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM) if spec.is_multi else None
        config = models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(
                size=spec.size, distance=models.Distance(spec.distance), multivector_config=several
            )
        )
        if vector not in self._vectors_of(name):
            self._call(name, lambda: create(name, vector, config))
        self._forget(name)

    def remove_vector(self, name: str, vector: str) -> None:
        """Remove a named vector with all its values; nothing happens where there is none."""
        if vector in self._vectors_of(name):
            self._call(name, lambda: self._client.delete_vector_name(name, vector))
        self._forget(name)

    def update_vectors(self, name: str, vector: str, values: Mapping[PointId, Float32]) -> list[PointId]:
        """Write a named vector of existing points, float32 [D] or [V, D]; nothing else of them changes.

        If a call names a point that is gone, a server writes the others and still refuses the call.

        Returns:
            The ids of which there is no point.
        """
        left, gone = dict(values), list[PointId]()
        while left:
            points = [
                models.PointVectors(id=_client_id(point_id), vector={vector: value.tolist()})
                for point_id, value in left.items()
            ]
            try:
                write = partial(self._client.update_vectors, shard_key_selector=self._key_for(name))
                self._write(name, partial(write, name, points, wait=True))
            except (CollectionNotFoundError, KeyError, StoreError, InputError):
                standing = {record.point_id for record in self.fetch(name, list(left), with_vectors=False, fields=())}
                missing = [point_id for point_id in left if point_id not in standing]
                if not missing:
                    raise
                gone += missing
                left = {point_id: value for point_id, value in left.items() if point_id in standing}
            else:
                break
        return gone

    def clear_vectors(self, name: str, vector: str, point_ids: Sequence[PointId]) -> None:
        """Remove the values that points have under a named vector; ids that do not exist are skipped."""
        ids = [record.point_id for record in self.fetch(name, point_ids, with_vectors=False, fields=())]
        if ids:
            selector = models.PointIdsList(points=[_client_id(point_id) for point_id in ids])
            delete = partial(self._client.delete_vectors, shard_key_selector=self._key_for(name))
            self._write(name, lambda: delete(name, [vector], selector, wait=True))

    def set_payloads(self, name: str, payloads: Mapping[PointId, Mapping[str, JsonValue]]) -> None:
        """Set top-level payload fields of points, by id; other fields stay."""
        key = self._key_for(name) if payloads else None
        plain = checked_payloads(payloads)
        self._update(
            name,
            [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload=payload, points=[_client_id(point_id)], shard_key=key)
                )
                for point_id, payload in plain.items()
            ],
        )

    def delete_payloads(self, name: str, fields: Mapping[PointId, Sequence[str]]) -> None:
        """Remove top-level payload fields of points, by id; the others stay."""
        key = self._key_for(name) if fields else None
        self._update(
            name,
            [
                models.DeletePayloadOperation(
                    delete_payload=models.DeletePayload(keys=list(keys), points=[_client_id(point_id)], shard_key=key)
                )
                for point_id, keys in fields.items()
            ],
        )

    def _update(self, name: str, operations: Sequence[models.UpdateOperation]) -> None:
        for start in range(0, len(operations), _OPERATIONS):
            part = operations[start : start + _OPERATIONS]
            write = partial(self._client.batch_update_points, name, wait=True)
            self._write_all(name, part, lambda some: write(update_operations=some), _id_of_operation)  # noqa: B023

    def query(
        self,
        name: str,
        vector: Float32,
        *,
        limit: int,
        filter: models.Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[Hit]:
        """Return the nearest points by cosine, best first; equal scores in any order. Raises InputError."""
        ask = partial(self._client.query_points, name, limit=limit)
        return _hits_of(self._search(ask, name, vector, limit, filter, using, options).points)

    def query_groups(
        self,
        name: str,
        vector: Float32,
        *,
        group_by: str,
        limit: int,
        group_size: int,
        filter: models.Filter | None,
        using: str = VECTOR_NAME,
        options: ReadOptions = PLAIN,
    ) -> list[HitGroup]:
        """Return the best groups by their best hit, made by the server. Raises InputError."""
        check_path(group_by, where="The search groups by")
        ask = partial(self._client.query_points_groups, name, group_by=group_by, limit=limit, group_size=group_size)
        found = self._search(ask, name, vector, limit * group_size, filter, using, options)
        return [HitGroup(group.id, tuple(_hits_of(group.hits))) for group in found.groups]

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
        """Read points by id: those that exist, in the order asked for."""
        wanted = models.PointRequest(
            ids=[_client_id(point_id) for point_id in dict.fromkeys(point_ids)],
            with_payload=_payload_of(fields),
            with_vector=[using] if with_vectors else False,
            shard_key=options.shard_key_selector,
        )
        found = self._call(name, lambda: self._retrieve(name, wanted, options))
        return _in_order(point_ids, _records_of(found, using))

    def scroll(
        self,
        name: str,
        *,
        filter: models.Filter | None,
        limit: int,
        after: PointId | None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        """Read points in id order without vectors, at most ``limit`` that follow ``after``; integers come first."""
        check_limit(limit)
        self._check_filter(name, filter)
        start = behind(after)
        if after is not None and start is None:
            return []
        read = partial(
            self._client.scroll,
            name,
            scroll_filter=filter,
            offset=None if start is None else _client_id(start),
            with_payload=_payload_of(fields),
        )
        found, _ = self._call(name, partial(_scrolled, read, limit))
        return _records_of(found)

    def delete(self, name: str, point_ids: Sequence[PointId]) -> None:
        """Remove points; ids that do not exist are skipped."""
        if not point_ids:
            self._vector(name, VECTOR_NAME)
            return
        selector = models.PointIdsList(points=[_client_id(point_id) for point_id in point_ids])
        delete = partial(self._client.delete, shard_key_selector=self._key_for(name))
        self._write(name, lambda: delete(name, selector, wait=True))

    def count(self, name: str, filter: models.Filter | None) -> int:
        """Count points exactly, or as well as the server may where strict mode forbids exact counts."""
        self._check_filter(name, filter)
        count = partial(self._client.count, name, filter)
        try:
            return self._call(name, partial(count, exact=True)).count
        except InputError as error:
            if "exact" not in str(error).lower():
                raise
        self._roughly_counted.add(name)
        return self._call(name, partial(count, exact=False)).count

    def counts_exactly(self, name: str) -> bool:
        """Return whether counts of a collection are exact, as far as they were made."""
        return name not in self._roughly_counted

    def optimize(self, name: str) -> None:
        """Do nothing: a server optimizes by itself. Raises CollectionNotFoundError like every other call."""
        self._call(name, lambda: self._client.get_collection(name))

    def close(self) -> None:
        """Close the client if the store made it; a client that was given stays open."""
        if self._owns_client:
            self._client.close()

    def _search(
        self,
        ask: Callable[..., Any],
        name: str,
        vector: Float32,
        limit: int,
        filter: models.Filter | None,
        using: str,
        options: ReadOptions,
    ) -> Any:  # noqa: ANN401 - a QueryResponse or a GroupsResult, as ``ask`` returns it
        check_limit(limit)
        self._check_filter(name, filter)
        spec = self._vector(name, using)
        check_query_vector(vector, name=name, size=_size(spec))
        # a server takes one vector for several views, the local client wants a list of them
        has_several = spec is not None and spec.is_multi and is_local(self._client)
        query = [vector.tolist()] if has_several else vector.tolist()
        search = partial(ask, query=query, using=using, query_filter=filter, with_payload=True, **_given(options))
        # a local client always searches exactly, and would warn of parameters
        if options.params is not None and not is_local(self._client):
            return self._call(name, partial(search, search_params=options.params))
        return self._call(name, partial(_widely, search, _view(self._client, limit)))

    def _retrieve(self, name: str, wanted: models.PointRequest, options: ReadOptions) -> list[models.Record]:
        """Read points uncompressed, with any client: compression only makes tokens slower, not smaller."""
        read = partial(
            self._client.retrieve,
            name,
            wanted.ids,
            with_payload=wanted.with_payload or False,
            with_vectors=wanted.with_vector or False,
            **_given(options),
        )
        if self._reads_over_rest:
            try:
                with headers(_UNCOMPRESSED):
                    answer = self._client.http.points_api.get_points(
                        collection_name=name, point_request=wanted, **_given(replace(options, shard_key_selector=None))
                    )
                return answer.result or []
            except (ResponseHandlingException, UnexpectedResponse) as error:
                if not _may_go_on_over_grpc(self._client, error):
                    raise
            found = read()
            # gRPC works where REST does not: its port is closed, or another server's
            self._reads_over_rest = False
            return found
        return read()

    def _write_all(
        self,
        name: str,
        items: Sequence[_Item],
        write: Callable[[list[_Item]], object],
        id_of: Callable[[_Item], PointId],
    ) -> None:
        """Write items in one call, or in halves where the server does not take so much at once.

        Raises:
            TooLargeError: single items are too large; all others are written.
        """
        refused: list[PointId] = []
        reason: TooLargeError | None = None
        parts = [list(items)] if items else []
        while parts:
            part = parts.pop(0)
            try:
                self._write(name, partial(write, part))
            except TooLargeError as error:
                middle = len(part) // 2
                if middle:
                    parts[:0] = [part[:middle], part[middle:]]
                else:
                    refused.append(id_of(part[0]))
                    reason = error
        if reason is not None:
            raise TooLargeError(
                f"{self._place}, or a proxy before it, does not take a point as large as {refused[0]} of "
                f"{self._companions.get(name, name)!r}. "
                "Give it less payload, or allow larger requests.",
                tuple(refused),
            ) from reason

    def _write(self, name: str, write: Callable[[], object]) -> None:
        """Make a write that has been applied when this returns; one that is only acknowledged is made again."""

        def applied() -> None:
            result = write()
            for each in result if isinstance(result, list) else [result]:
                status = getattr(each, "status", models.UpdateStatus.COMPLETED)
                if status != models.UpdateStatus.COMPLETED:
                    raise NotAppliedError(f"the write is {getattr(status, 'value', status)} but not applied yet")

        self._check_one_server(name)
        self._call(name, applied)

    def _check_one_server(self, name: str) -> None:
        """Check, before anything is written, that REST and gRPC lead to one server: no peer of theirs is the same.

        A REST side that is closed, or no server of Qdrant's, is not used, so there is nothing to show.

        Raises:
            StoreError: they are different servers.
        """
        if self._is_one_server:
            return
        try:
            over_grpc = _peers(self._call(name, lambda: self._client.collection_cluster_info(name)))
        except CollectionNotFoundError:
            return
        except StoreUnavailableError:
            raise
        except (StoreError, InputError):
            # a key may allow to write and not to look at the cluster
            _logger.debug("whether REST and gRPC are one server cannot be seen", exc_info=True)
            self._is_one_server = True
            return
        try:
            answer = self._client.http.distributed_api.collection_cluster_info(collection_name=name)
        except UnexpectedResponse as error:
            is_other = error.status_code == HTTPStatus.NOT_FOUND and says_status(error)
            over_rest = set[int]() if is_other else over_grpc
        except (ResponseHandlingException, ValueError):
            over_rest = over_grpc
        else:
            over_rest = _peers(answer.result)
        if over_rest.isdisjoint(over_grpc):
            raise self._two_servers()
        self._is_one_server = True

    def _two_servers(self) -> StoreError:
        port = self._client.init_options.get("grpc_port")
        return StoreError(
            f"{self._place} and its gRPC port {port} are two servers: nothing was written. Give the "
            "port of the right one (--grpc-port, QDRANT_GRPC_PORT or grpc_port=)."
        )

    def _check_filter(self, name: str, filter: models.Filter | None) -> None:
        """Refuse a filter that cannot be read, or that looks for words in a field without a text index."""
        if filter is None:
            return
        wanted = text_fields(filter)
        if set(wanted) <= self._text_fields.get(name, set()):
            return
        if is_local(self._client):
            kinds = indexes_of(self._client).get(name, {})
        else:
            schema = self._call(name, lambda: self._client.get_collection(name)).payload_schema
            kinds = {field: found.data_type.value for field, found in schema.items()}
        self._text_fields[name] = {field for field, kind in kinds.items() if kind == "text"}
        for field in wanted:
            if field not in self._text_fields[name]:
                raise needs_index(name, field, "text", why="a filter on its words")

    def _forget(self, name: str) -> None:
        self._has_keys.pop(name, None)
        self._text_fields.pop(name, None)
        self._known = {key: spec for key, spec in self._known.items() if key[0] != name}

    def _vectors_of(self, name: str) -> Mapping[str, VectorSpec]:
        return _spec_of(self._call(name, lambda: self._client.get_collection(name))).vectors

    def _vector(self, name: str, vector: str) -> VectorSpec | None:
        if (name, vector) not in self._known:
            self._known[name, vector] = self._vectors_of(name).get(vector)
        return self._known[name, vector]

    def _call(self, name: str | None, call: Callable[[], _Value]) -> _Value:
        """Call the client about a collection: in turn, with retries, and with its errors translated."""

        def in_turn() -> _Value:
            with self._turn:
                return call()

        owner = None if name is None else self._companions.get(name)
        with translated(self._place, name=owner or name, is_companion=owner is not None, worded=self._worded):
            try:
                value = self._retries.call(in_turn)
            except CLIENT_ERRORS as error:
                if not is_local(self._client):
                    raise_if_too_old(self._client, self._place, error)
                raise
        if not self._versions_are_checked:
            # after a call that was answered: the server is there, and nobody waits for one that is not
            self._versions_are_checked = True
            check_versions(self._client, self._place)
        return value


def _size(spec: VectorSpec | None) -> int | None:
    return None if spec is None else spec.size


def _may_compress(client: QdrantClient | AsyncQdrantClient) -> bool:
    """Return whether a server may compress its answers to a client; clients of :func:`connect` forbid it."""
    if is_local(client):
        return False
    options = client.init_options
    if options.get("prefer_grpc"):
        return (options.get("grpc_options") or {}).get("grpc.compression_enabled_algorithms_bitset") != 1
    return (options.get("metadata") or {}).get("Accept-Encoding") != "identity"


def _may_go_on_over_grpc(client: QdrantClient | AsyncQdrantClient, error: Exception) -> bool:
    """Return whether gRPC may work where REST failed: REST is closed, or lacks this collection or key."""
    if not client.init_options.get("prefer_grpc"):
        return False
    return not has_answer(error) or not is_transient(error)


def _view(client: QdrantClient | AsyncQdrantClient, limit: int) -> models.SearchParams | None:
    """Return how widely a search looks at the graph; None for a local client, which has none and would warn."""
    return None if is_local(client) else models.SearchParams(hnsw_ef=hnsw_ef(limit))


def _widely(search: Callable[..., _Value], view: models.SearchParams | None) -> _Value:
    """Search with a wide view of the graph, or with the server's own where strict mode forbids it."""
    try:
        return search(search_params=view)
    except CLIENT_ERRORS as error:
        if view is None or not _forbids_view(error):
            raise
    return search(search_params=None)


def _forbids_view(error: Exception) -> bool:
    return not is_transient(error) and "hnsw_ef" in detail_of(error)


def _scrolled(scroll: Callable[..., _Value], limit: int) -> _Value:
    """Read a page, or a smaller one where strict mode forbids so many points."""
    try:
        return scroll(limit=limit)
    except CLIENT_ERRORS as error:
        most = most_results(error)
        if not most:
            raise
    return scroll(limit=most)


def _names_of(answer: models.CollectionsResponse) -> list[str]:
    return sorted(collection.name for collection in answer.collections)


def _spec_of(info: models.CollectionInfo) -> CollectionSpec:
    declared = info.config.params.vectors
    named = declared if isinstance(declared, dict) else {} if declared is None else {"": declared}
    vectors = {
        name: VectorSpec(params.size, params.distance.value, params.multivector_config is not None)
        for name, params in named.items()
    }
    ours = vectors.get(VECTOR_NAME)
    return CollectionSpec(
        vector_size=None if ours is None else ours.size,
        metadata=dict(info.config.metadata or {}),
        vectors=vectors,
    )


def _placement_of(config: models.CollectionConfig) -> dict[str, object]:
    """Return how a collection lies on a server, by the names of ``create_collection``."""
    # older clients know nothing of the payload's memory
    placement = {key: getattr(config.params, key) for key in _PLACEMENT if hasattr(config.params, key)}
    vectors, strict = config.params.vectors, config.strict_mode_config
    ours = vectors.get(VECTOR_NAME) if isinstance(vectors, dict) else None
    return placement | {
        "on_disk": None if ours is None else ours.on_disk,
        "hnsw_config": config.hnsw_config,
        "optimizers_config": config.optimizer_config,
        "wal_config": config.wal_config,
        "quantization_config": config.quantization_config,
        "strict_mode_config": None
        if strict is None
        else models.StrictModeConfig.model_validate(strict.model_dump(exclude_none=True)),
    }


def _point_struct(point: StoredPoint) -> models.PointStruct:
    vector = {} if point.vector is None else {VECTOR_NAME: point.vector.tolist()}
    return models.PointStruct(id=_client_id(point.point_id), vector=vector, payload=dict(point.payload))


def _peers(info: models.CollectionClusterInfo | None) -> set[int]:
    """Return the servers on which a collection lies, and the one that was asked."""
    return set() if info is None else {info.peer_id, *(shard.peer_id for shard in info.remote_shards)}


def _id_of_struct(point: models.PointStruct) -> PointId:
    return _point_id(point.id)


def _id_of_operation(operation: models.UpdateOperation) -> PointId:
    """Return the one point that an operation of ours changes."""
    change = (
        operation.set_payload
        if isinstance(operation, models.SetPayloadOperation)
        else cast("models.DeletePayloadOperation", operation).delete_payload
    )
    return _point_id((change.points or [])[0])


def _hits_of(points: Iterable[models.ScoredPoint]) -> list[Hit]:
    return [Hit(_point_id(point.id), float(point.score), point.payload or {}) for point in points]


def _records_of(found: Iterable[models.Record], vector: str = VECTOR_NAME) -> list[Record]:
    records = []
    for point in found:
        value = point.vector.get(vector) if isinstance(point.vector, dict) else None
        array = None if value is None else np.asarray(value, dtype=np.float32)
        records.append(Record(_point_id(point.id), point.payload or {}, array))
    return records


def _in_order(point_ids: Sequence[PointId], records: Iterable[Record]) -> list[Record]:
    found = {record.point_id: record for record in records}
    return [found[point_id] for point_id in point_ids if point_id in found]


def _payload_of(fields: Sequence[str] | None) -> bool | list[str]:
    if fields is None:
        return True
    return list(fields) if fields else False


def _given(options: ReadOptions) -> dict[str, Any]:
    """Return the options that the caller set, as the client's arguments."""
    given = {
        "consistency": options.consistency,
        "timeout": options.timeout,
        "shard_key_selector": options.shard_key_selector,
    }
    return {key: value for key, value in given.items() if value is not None}


def _client_id(point_id: PointId) -> int | str:
    return point_id if isinstance(point_id, int) else str(point_id)


def _point_id(point_id: models.ExtendedPointId) -> PointId:
    return point_id if isinstance(point_id, int) else UUID(str(point_id))
