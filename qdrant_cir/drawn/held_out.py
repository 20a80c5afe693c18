"""Combinations that training never sees, so that tests can ask for new ones."""

from __future__ import annotations

import hashlib

from qdrant_cir.drawn.scene import Scene, main_part

__all__ = ["is_held_out"]

_HELD_OUT_SHARE = 0.1


def is_held_out(scene: Scene) -> bool:
    """Return whether a scene's family, main colour and main pattern are a combination that training never sees.

    These are a tenth of all combinations, chosen by a hash that is the same in every version of Python.
    """
    main = main_part(scene)
    digest = hashlib.sha256(f"{scene.family}/{main.color}/{main.pattern}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < _HELD_OUT_SHARE * 2**32
