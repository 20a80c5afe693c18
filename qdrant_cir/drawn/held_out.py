"""Which scenes training never sees, so that tests can ask about combinations that are new."""

from __future__ import annotations

import hashlib

from qdrant_cir.drawn.scene import Scene, main_part

__all__ = ["is_held_out"]

_HELD_OUT_SHARE = 0.1


def is_held_out(scene: Scene) -> bool:
    """Tell whether a scene's family, main colour and main pattern are a combination kept from training.

    A tenth of all combinations is, chosen by a hash that no version of Python changes.
    """
    main = main_part(scene)
    digest = hashlib.sha256(f"{scene.family}/{main.color}/{main.pattern}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < _HELD_OUT_SHARE * 2**32
