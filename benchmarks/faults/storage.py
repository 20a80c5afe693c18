"""Faults in what is stored, and in how the stores are called."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_COLLECTION = "tests/unit/test_collection_writes.py"
_SERVER = "tests/unit/test_server_calls.py"
_ERRORS = "tests/unit/test_foreign_errors.py"
_EDGE = "tests/unit/test_edge_flush.py"
_PICTURES = "tests/unit/test_image_digests.py"
_FILTERS = "tests/unit/test_unknown_fields.py"
_FLOORS = "tests/unit/test_evaluation_floors.py"

_TRANSLATED = {
    "rest_errors": "ApiException",
    "client_errors": "QdrantException",
    "grpc_errors": "grpc.RpcError",
    "os_errors": "OSError",
    "runtime_errors": "RuntimeError",
    "value_errors": "ValueError",
}
"""Foreign exceptions that are translated, each of which a fault lets through."""

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="stale_tokens_served",
        file="qdrant_cir/storage/points.py",
        old="    if sha256_of_record(record) != image.sha256:\n",
        new="    if sha256_of_record(record) == '':\n",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="tokens_deleted_before_the_point",
        file="qdrant_cir/storage/collection.py",
        old="""\
        self._store.delete(self._name, list(ids))
        self._store.delete(self._tokens_name, list(ids))
""",
        new="""\
        self._store.delete(self._tokens_name, list(ids))
        self._store.delete(self._name, list(ids))
""",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="tokens_dropped_before_the_gallery",
        file="qdrant_cir/storage/collection.py",
        old="        self._store.drop(self._name)\n        self._store.drop(self._tokens_name)\n",
        new="        self._store.drop(self._tokens_name)\n        self._store.drop(self._name)\n",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="gallery_point_written_before_its_tokens",
        file="qdrant_cir/storage/collection.py",
        old="""\
            self._store.upsert(self._tokens_name, [tokens_point(image, fingerprint) for image in batch])
            self._store.upsert(self._name, gallery)
""",
        new="""\
            self._store.upsert(self._name, gallery)
            self._store.upsert(self._tokens_name, [tokens_point(image, fingerprint) for image in batch])
""",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="tokens_written_before_the_check",
        file="qdrant_cir/storage/collection.py",
        old="            check_points(gallery, name=self._name, size=self._spec.vector_size)\n",
        new="",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="batches_without_a_byte_limit",
        file="qdrant_cir/storage/points.py",
        old="        if batch and size + needs > limit:\n",
        new="        if batch and len(batch) == 1000:\n",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="never_optimized_after_indexing",
        file="qdrant_cir/indexer.py",
        old="            if tally.indexed:\n                self._collection.optimize()\n",
        new="",
        tests=(_COLLECTION,),
    ),
    Fault(
        name="upsert_does_not_wait",
        file="qdrant_cir/storage/stores/server.py",
        old="self._client.upsert(name, structs, wait=True)",
        new="self._client.upsert(name, structs, wait=False)",
        tests=(_SERVER,),
    ),
    Fault(
        name="delete_does_not_wait",
        file="qdrant_cir/storage/stores/server.py",
        old="self._client.delete(name, selector, wait=True)",
        new="self._client.delete(name, selector, wait=False)",
        tests=(_SERVER,),
    ),
    Fault(
        name="no_retry_of_a_write",
        file="qdrant_cir/storage/stores/server_errors.py",
        old="_PAUSES = (0.5, 1.0, 2.0, 4.0)",
        new="_PAUSES: tuple[float, ...] = ()",
        tests=(_SERVER,),
    ),
    Fault(
        name="every_failure_tried_again",
        file="qdrant_cir/storage/stores/server_errors.py",
        old="            if not _is_transient(error):\n",
        new="            if False:\n",
        tests=(f"{_SERVER}::test_a_refusal_that_waiting_does_not_mend_is_told_at_once",),
    ),
    Fault(
        name="a_pause_that_is_asked_for_not_made",
        file="qdrant_cir/storage/stores/server_errors.py",
        old="max(pause, asked)",
        new="pause",
        tests=(_SERVER,),
    ),
    Fault(
        name="cause_left_out_of_the_message",
        file="qdrant_cir/storage/stores/server_errors.py",
        old='f"{type(error.source).__name__}: {error.source}"',
        new="str(error.source)",
        tests=(_ERRORS,),
    ),
    Fault(
        name="refused_key_is_the_users_input",
        file="qdrant_cir/storage/stores/server_errors.py",
        old='        return StoreError(f"{place} refused the API key',
        new='        return InputError(f"{place} refused the API key',
        tests=(_ERRORS,),
    ),
    Fault(
        name="refused_key_over_grpc_is_the_users_input",
        file="qdrant_cir/storage/stores/server_errors.py",
        old="grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED",
        new="grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.BAD_REQUEST",
        tests=(_ERRORS,),
    ),
    Fault(
        name="gzip_left_on_in_grpc",
        file="qdrant_cir/storage/stores/connection.py",
        old='        grpc_options={"grpc.compression_enabled_algorithms_bitset": 1},\n',
        new="",
        tests=(_SERVER,),
    ),
    Fault(
        name="gzip_left_on_in_rest",
        file="qdrant_cir/storage/stores/connection.py",
        old='        metadata={"Accept-Encoding": "identity"},\n',
        new="",
        tests=(_SERVER,),
    ),
    Fault(
        name="edge_never_flushed_after_a_write",
        file="qdrant_cir/storage/stores/edge.py",
        old="""\
                    shard.update(operation)
                finally:
                    shard.flush()
""",
        new="""\
                    shard.update(operation)
                finally:
                    pass
""",
        tests=(_EDGE,),
    ),
    Fault(
        name="must_not_on_an_unknown_field_passed_over",
        file="qdrant_cir/search/ranking.py",
        old="(not hits or bool(self.filter.must_not))",
        new="not hits",
        tests=(_FILTERS,),
    ),
    Fault(
        name="pictures_of_other_shapes_taken_for_one",
        file="qdrant_cir/indexing/preparation.py",
        old='hashlib.sha256(f"RGB {rgb.width}x{rgb.height} ".encode() + rgb.tobytes())',
        new="hashlib.sha256(rgb.tobytes())",
        tests=(_PICTURES,),
    ),
    Fault(
        name="image_only_control_counts_the_reference",
        file="qdrant_cir/evaluation/runs/floors.py",
        old="part.gallery, is_image_only or part.excludes_reference)",
        new="part.gallery, part.excludes_reference)",
        tests=(_FLOORS,),
    ),
    Fault(
        name="payload_measured_in_characters",
        file="qdrant_cir/storage/points.py",
        old="len(repr(image.payload).encode())",
        new="len(repr(image.payload))",
        tests=(_COLLECTION,),
    ),
    *(
        Fault(
            name=f"{name}_let_through",
            file="qdrant_cir/storage/stores/server_errors.py",
            old=f"except ({', '.join(_TRANSLATED.values())}) as error:",
            new=f"except ({', '.join(kind for other, kind in _TRANSLATED.items() if other != name)}) as error:",
            tests=(_ERRORS,),
        )
        for name in _TRANSLATED
    ),
)
