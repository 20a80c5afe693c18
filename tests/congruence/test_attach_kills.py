"""An index of an attached collection that is killed with SIGKILL again and again; 5,000 points in ``benchmarks``."""

from __future__ import annotations

import sys
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_front import rest_front

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.trust.attach_kills import Outcome, collection, kill_and_compare, own_shard

POINTS, KILLS = 300, 3


def check(outcome: Outcome) -> None:
    assert outcome.is_equal
    assert outcome.without_tokens == 0
    assert len(outcome.told) == KILLS
    # a run goes on where the one before was killed
    assert outcome.left < POINTS


def test_a_shard_of_the_users_own_is_equal_after_kills(tmp_path: Path, tiny_bundle: Path) -> None:
    fill, dump = own_shard(tmp_path)
    check(kill_and_compare(str(tmp_path), fill, dump, points=POINTS, kills=KILLS, bundle=str(tiny_bundle)))


def test_a_collection_of_a_server_is_equal_after_kills_of_the_client(tiny_bundle: Path) -> None:
    with rest_front() as front:
        fill, dump = collection(QdrantClient(front.url, check_compatibility=False))
        check(kill_and_compare(front.url, fill, dump, points=POINTS, kills=KILLS, bundle=str(tiny_bundle)))
