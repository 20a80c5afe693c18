"""Ordinary queries: a look of the whole product, and all products of the kind that have it."""

import numpy as np

from qdrant_cir.drawn.language import _words, vocabulary
from qdrant_cir.drawn.ordinary import UNTRAINED_COLORS, ordinary_queries
from qdrant_cir.drawn.scene import main_part, sample_scene

SCENES = [sample_scene(np.random.default_rng(seed)) for seed in range(600)]


def looks(place: int) -> set[str]:
    return {main_part(SCENES[place]).color, main_part(SCENES[place]).pattern}


def test_every_product_of_the_kind_with_the_look_is_right_and_no_other() -> None:
    queries = ordinary_queries(SCENES, np.random.default_rng(0))
    assert len(queries) > 500
    for query in queries:
        family = SCENES[query.reference].family
        right = [place for place, scene in enumerate(SCENES) if scene.family == family and query.look in looks(place)]
        assert list(query.targets) == right
        assert query.look not in looks(query.reference)


def test_colours_that_are_left_out_are_never_asked_for() -> None:
    asked = {query.look for query in ordinary_queries(SCENES, np.random.default_rng(0))}
    assert not asked & UNTRAINED_COLORS
    assert asked >= {"navy", "striped", "solid"}
    everything = {query.look for query in ordinary_queries(SCENES, np.random.default_rng(0), without=frozenset())}
    assert everything == asked | UNTRAINED_COLORS


def test_the_model_knows_every_word() -> None:
    known = set(vocabulary())
    texts = [text for query in ordinary_queries(SCENES, np.random.default_rng(0)) for text in query.texts]
    assert "in navy" in texts
    assert not [text for text in texts if not set(_words(text)) <= known]
