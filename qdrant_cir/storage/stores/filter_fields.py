"""Another name of :mod:`qdrant_cir.storage.stores.filters`, until nothing imports it."""

from qdrant_cir.storage.stores.filters import filter_fields

__all__ = ["filter_fields"]
