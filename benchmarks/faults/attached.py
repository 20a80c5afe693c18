"""Faults in collections that are attached."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_LAWS = ("tests/unit/test_attached_laws.py",)

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="tokens_of_another_picture_of_an_attached_point_served",
        file="qdrant_cir/storage/points.py",
        old='return made.source == (source if version is None else f"{source}\\n{version}")',
        new="return True",
        tests=_LAWS,
    ),
    Fault(
        name="tokens_of_another_version_of_an_attached_picture_served",
        file="qdrant_cir/storage/points.py",
        old='return made.source == (source if version is None else f"{source}\\n{version}")',
        new='return str(made.source).partition("\\n")[0] == source',
        tests=_LAWS,
    ),
    Fault(
        name="points_replaced_where_a_server_writes_a_vector",
        file="qdrant_cir/storage/stores/server.py",
        old="partial(write, name, points, wait=True)",
        new="partial(self._client.upsert, name, [models.PointStruct(id=p.id, vector=p.vector) for p in points])",
        tests=_LAWS,
    ),
    Fault(
        name="points_replaced_where_the_embedded_store_writes_a_vector",
        file="qdrant_cir/storage/stores/edge.py",
        old="edge.UpdateOperation.update_vectors(\n" + " " * 28 + "[\n" + " " * 32 + "edge.PointVectors(point_id, "
        "{vector: values[point_id].astype(float).tolist()})\n",
        new="edge.UpdateOperation.upsert_points(\n" + " " * 28 + "[\n" + " " * 32 + "edge.Point(point_id, "
        "{vector: values[point_id].astype(float).tolist()}, {})\n",
        tests=_LAWS,
    ),
    Fault(
        name="vector_added_before_the_companion",
        file="qdrant_cir/storage/attachment.py",
        old="    store.create(companion, CollectionSpec(None, made.metadata(bundle), placement=_of_companion(found)))",
        new="    if not vector_stands:\n        store.add_vector(collection, wanted.vector, spec)\n"
        "    store.create(companion, CollectionSpec(None, made.metadata(bundle), placement=_of_companion(found)))",
        tests=_LAWS,
    ),
    Fault(
        name="vector_that_stood_before_removed_by_detach",
        file="qdrant_cir/storage/attachment.py",
        old="        elif standing.made_vector:\n",
        new="        elif standing:\n",
        tests=_LAWS,
    ),
    Fault(
        name="vector_that_stood_before_taken_for_ours",
        file="qdrant_cir/storage/attachment.py",
        old="        made_vector=not vector_stands,\n",
        new="        made_vector=True,\n",
        tests=_LAWS,
    ),
    Fault(
        name="companion_dropped_before_the_vector_is_removed",
        file="qdrant_cir/storage/attachment.py",
        old="            store.remove_vector(layout.gallery, layout.vector)\n",
        new="            store.drop(layout.companion)\n"
        "            store.remove_vector(layout.gallery, layout.vector)\n",
        tests=_LAWS,
    ),
    Fault(
        name="tokens_of_an_attached_point_written_before_its_vector",
        file="qdrant_cir/storage/collection.py",
        old="            gone = set(self.store.update_vectors(",
        new="            self._write_tokens(batch)\n            gone = set(self.store.update_vectors(",
        tests=_LAWS,
    ),
    Fault(
        name="tokens_deleted_before_the_vector",
        file="qdrant_cir/storage/collection.py",
        old="        else:\n            self.store.clear_vectors(",
        new="""\
        else:
            self.store.delete(self.layout.companion, records)
            self.store.clear_vectors(""",
        tests=_LAWS,
    ),
    Fault(
        name="points_of_an_attached_collection_deleted",
        file="qdrant_cir/storage/collection.py",
        old="self.store.clear_vectors(self.name, self.layout.vector, [record.point_id for record in found])",
        new="self.store.delete(self.name, [record.point_id for record in found])",
        tests=_LAWS,
    ),
    Fault(
        name="tokens_of_a_point_that_is_gone_left",
        file="qdrant_cir/storage/collection.py",
        old="self._write_tokens([image for image in batch if image.point_id not in gone])",
        new="self._write_tokens(batch)",
        tests=_LAWS,
    ),
    Fault(
        name="attached_collection_dropped",
        file="qdrant_cir/storage/collection.py",
        old='if self.attachment is not None:\n            raise InputError(\n                f"{self.name!r} is not',
        new='if not self.name:\n            raise InputError(\n                f"{self.name!r} is not',
        tests=_LAWS,
    ),
)
