"""Faults in what is stored, and in how the stores are called."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_COLLECTION = ("tests/unit/test_collection_writes.py",)
_SERVER = ("tests/unit/test_server_calls.py",)
_CONNECTION = ("tests/unit/test_connection.py",)
_ERRORS = ("tests/unit/test_foreign_errors.py",)
_RETRYING = ("tests/unit/test_retrying.py",)
_EDGE = ("tests/unit/test_edge_flush.py",)
_PICTURES = ("tests/unit/test_image_digests.py",)
_FILTERS = ("tests/unit/test_unknown_fields.py",)
_CONTROLS = ("tests/unit/test_evaluation_controls.py",)

_TRANSLATED = {
    "rest_errors": "ApiException",
    "client_errors": "QdrantException",
    "grpc_errors": "grpc.RpcError",
    "grpc_usage_errors": "grpc.aio.UsageError",
    "httpx_errors": "httpx.HTTPError",
    "address_errors": "httpx.InvalidURL",
    "os_errors": "OSError",
    "runtime_errors": "RuntimeError",
    "value_errors": "ValueError",
}
"""Foreign exceptions that are translated, each of which a fault lets through."""

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="stale_tokens_served",
        file="qdrant_cir/storage/points.py",
        old="return made.sha256 == image.sha256",
        new="return True",
        tests=_COLLECTION,
    ),
    Fault(
        name="tokens_deleted_before_the_point",
        file="qdrant_cir/storage/collection.py",
        old="            self.store.delete(self.name, list(ids))\n",
        new="""\
            self.store.delete(self.layout.companion, list(ids))
            self.store.delete(self.name, list(ids))
""",
        tests=_COLLECTION,
    ),
    Fault(
        name="gallery_dropped_before_its_tokens",
        file="qdrant_cir/storage/collection.py",
        old="        self.store.drop(self.layout.companion)\n        self.store.drop(self.name)\n",
        new="        self.store.drop(self.name)\n        self.store.drop(self.layout.companion)\n",
        tests=_COLLECTION,
    ),
    Fault(
        name="gallery_point_written_before_its_tokens",
        file="qdrant_cir/storage/collection.py",
        old="                refused = self._write_tokens(batch)\n",
        new="                self.store.upsert(self.name, points)\n"
        "                refused = self._write_tokens(batch)\n",
        tests=_COLLECTION,
    ),
    Fault(
        name="tokens_written_before_the_check",
        file="qdrant_cir/storage/collection.py",
        old="                points = checked_points(\n",
        new="                self._write_tokens(batch)\n                points = checked_points(\n",
        tests=_COLLECTION,
    ),
    Fault(
        name="batches_without_a_byte_limit",
        file="qdrant_cir/storage/points.py",
        old="        if batch and size + needs > limit:\n",
        new="        if batch and len(batch) == 1000:\n",
        tests=_COLLECTION,
    ),
    Fault(
        name="payload_measured_in_characters",
        file="qdrant_cir/storage/points.py",
        old="len(repr(image.payload).encode())",
        new="len(repr(image.payload))",
        tests=_COLLECTION,
    ),
    Fault(
        name="never_optimized_after_indexing",
        file="qdrant_cir/indexer.py",
        old="            if tally.indexed:\n                self._collection.optimize()\n",
        new="",
        tests=_COLLECTION,
    ),
    Fault(
        name="upsert_does_not_wait",
        file="qdrant_cir/storage/stores/server.py",
        old="lambda part: write(name, part, wait=True)",
        new="lambda part: write(name, part, wait=False)",
        tests=_SERVER,
    ),
    Fault(
        name="delete_does_not_wait",
        file="qdrant_cir/storage/stores/server.py",
        old="lambda: delete(name, selector, wait=True)",
        new="lambda: delete(name, selector, wait=False)",
        tests=_SERVER,
    ),
    Fault(
        name="payloads_set_without_waiting",
        file="qdrant_cir/storage/stores/server.py",
        old="partial(self._client.batch_update_points, name, wait=True)",
        new="partial(self._client.batch_update_points, name, wait=False)",
        tests=_SERVER,
    ),
    Fault(
        name="vectors_written_without_waiting",
        file="qdrant_cir/storage/stores/server.py",
        old="partial(write, name, points, wait=True)",
        new="partial(write, name, points, wait=False)",
        tests=_SERVER,
    ),
    Fault(
        name="vectors_cleared_without_waiting",
        file="qdrant_cir/storage/stores/server.py",
        old="lambda: delete(name, [vector], selector, wait=True)",
        new="lambda: delete(name, [vector], selector, wait=False)",
        tests=_SERVER,
    ),
    Fault(
        name="no_retry_of_a_call",
        file="qdrant_cir/storage/stores/retrying.py",
        old="                pause = budget.pause_after(error)\n",
        new="                raise error\n",
        tests=_SERVER,
    ),
    Fault(
        name="every_failure_tried_again",
        file="qdrant_cir/storage/stores/retrying.py",
        old="if not is_transient(error) or left <= 0 or asked > left:",
        new="if left <= 0 or asked > left:",
        tests=_SERVER,
    ),
    Fault(
        name="tried_again_for_ever",
        file="qdrant_cir/storage/stores/retrying.py",
        old="or left <= 0 or asked > left:",
        new="or self._waited > 10 * self._seconds:",
        tests=_RETRYING,
    ),
    Fault(
        name="a_pause_that_is_asked_for_not_made",
        file="qdrant_cir/storage/stores/retrying.py",
        old="max(min(self._pause, left), asked)",
        new="min(self._pause, left)",
        tests=_SERVER,
    ),
    Fault(
        name="cause_left_out_of_the_message",
        file="qdrant_cir/storage/stores/errors.py",
        old='f"{type(error.source).__name__}: {error.source}".replace',
        new="str(error.source).replace",
        tests=_ERRORS,
    ),
    Fault(
        name="refused_key_is_the_users_input",
        file="qdrant_cir/storage/stores/errors.py",
        old='        return StoreError(f"{place} refused the API key',
        new='        return InputError(f"{place} refused the API key',
        tests=_ERRORS,
    ),
    Fault(
        name="refused_key_over_grpc_is_the_users_input",
        file="qdrant_cir/storage/stores/errors.py",
        old="grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED",
        new="grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.BAD_REQUEST",
        tests=_ERRORS,
    ),
    Fault(
        name="gzip_left_on_in_grpc",
        file="qdrant_cir/storage/stores/connection.py",
        old="            grpc_options=dict(_UNCOMPRESSED),\n",
        new="",
        tests=_SERVER,
    ),
    Fault(
        name="gzip_left_on_in_asynchronous_grpc",
        file="qdrant_cir/storage/stores/connection.py",
        old='**{**client.init_options, "grpc_options": dict(_UNCOMPRESSED)}',
        new='**{**client.init_options, "grpc_options": None}',
        tests=_CONNECTION,
    ),
    Fault(
        name="gzip_left_on_in_rest",
        file="qdrant_cir/storage/stores/connection.py",
        old='            metadata={"Accept-Encoding": "identity"},\n',
        new="",
        tests=_SERVER,
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
        tests=_EDGE,
    ),
    Fault(
        name="must_not_on_an_unknown_field_passed_over",
        file="qdrant_cir/search/path.py",
        old="(not count or options.filter.must_not)",
        new="not count",
        tests=_FILTERS,
    ),
    Fault(
        name="pictures_of_other_shapes_taken_for_one",
        file="qdrant_cir/model/preprocess.py",
        old='        digest.update(f"RGB {rgb.width}x{rgb.height} ".encode())\n',
        new="",
        tests=_PICTURES,
    ),
    Fault(
        name="deep_pictures_of_other_shapes_taken_for_one",
        file="qdrant_cir/model/preprocess.py",
        old='        digest.update(f"{image.mode} {image.width}x{image.height} ".encode())\n',
        new="",
        tests=_PICTURES,
    ),
    Fault(
        name="pictures_that_differ_beyond_eight_bits_taken_for_one",
        file="qdrant_cir/model/preprocess.py",
        old='    if image.mode in ("I", "F"):\n        # more',
        new="    if not image.mode:\n        # more",
        tests=_PICTURES,
    ),
    Fault(
        name="image_only_control_counts_the_reference",
        file="qdrant_cir/evaluation/runs/controls.py",
        old="part.gallery, is_image_only or part.excludes_reference)",
        new="part.gallery, part.excludes_reference)",
        tests=_CONTROLS,
    ),
    *(
        Fault(
            name=f"{name}_let_through",
            file="qdrant_cir/storage/stores/errors.py",
            old="CLIENT_ERRORS = (\n" + "".join(f"    {kind},\n" for kind in _TRANSLATED.values()) + ")\n",
            new="CLIENT_ERRORS = (\n"
            + "".join(f"    {kind},\n" for other, kind in _TRANSLATED.items() if other != name)
            + ")\n",
            tests=_ERRORS,
        )
        for name in _TRANSLATED
    ),
)
