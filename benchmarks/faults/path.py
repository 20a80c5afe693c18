"""Faults in the path of a query, and in what drives it."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_STEPS = ("tests/unit/test_steps.py",)
_LAWS = ("tests/unit/test_query_laws.py",)
_READS = ("tests/congruence/test_reads.py",)

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="error_of_a_step_swallowed",
        file="qdrant_cir/storage/steps.py",
        old="            resume = partial(steps.throw, error)\n",
        new="            resume = partial(steps.send, None)\n",
        tests=_STEPS,
    ),
    Fault(
        name="cancelled_path_goes_on",
        file="qdrant_cir/storage/steps.py",
        old="    finally:\n        stopped.set()\n",
        new="    finally:\n        pass\n",
        tests=_STEPS,
    ),
    Fault(
        name="error_of_a_read_swallowed_side_by_side",
        file="qdrant_cir/storage/steps.py",
        old="\n            except Exception as error:\n                resume = partial(path.steps.throw, error)\n",
        new="\n            except Exception:\n                resume = partial(path.steps.send, None)\n",
        tests=_STEPS,
    ),
    Fault(
        name="error_of_a_computation_swallowed_side_by_side",
        file="qdrant_cir/storage/steps.py",
        old="else partial(steps.throw, error))",
        new="else partial(steps.send, None))",
        tests=_STEPS,
    ),
    Fault(
        name="waiting_counted_where_steps_are_awaited",
        file="qdrant_cir/storage/steps.py",
        old="    def work() -> T:\n        path.watch.start()\n",
        new="    path.watch.start()\n\n    def work() -> T:\n",
        tests=_STEPS,
    ),
    Fault(
        name="waiting_counted_side_by_side",
        file="qdrant_cir/storage/steps.py",
        old="                path.watch.stop()\n                computing[",
        new="                computing[",
        tests=_STEPS,
    ),
    Fault(
        name="waiting_after_a_computation_counted",
        file="qdrant_cir/storage/steps.py",
        old="    finally:\n        watch.stop()\n",
        new="    finally:\n        watch.start()\n",
        tests=_STEPS,
    ),
    Fault(
        name="reads_not_counted_side_by_side",
        file="qdrant_cir/storage/steps.py",
        old="            try:\n                value = step.call(store)\n",
        new="            try:\n                path.watch.stop()\n                value = step.call(store)\n",
        tests=_STEPS,
    ),
    Fault(
        name="store_called_from_a_pool_thread",
        file="qdrant_cir/storage/steps.py",
        old="            try:\n                value = step.call(store)\n",
        new="            try:\n                value = threads.submit(step.call, store).result()\n",
        tests=_STEPS,
    ),
    Fault(
        name="more_paths_begun_than_may_be_in_flight",
        file="qdrant_cir/storage/steps.py",
        old="while begun < len(paths) and len(computing) < in_flight:",
        new="while begun < len(paths):",
        tests=_STEPS,
    ),
    Fault(
        name="must_not_adds_to_stage_one",
        file="qdrant_cir/search/query_model.py",
        old="_unit(vector - query.must_not_weight * against.vector)",
        new="_unit(vector + query.must_not_weight * against.vector)",
        tests=_LAWS,
    ),
    Fault(
        name="must_not_adds_to_stage_two",
        file="qdrant_cir/search/query_model.py",
        old="-query.must_not_weight * reference.weight",
        new="query.must_not_weight * reference.weight",
        tests=_LAWS,
    ),
    Fault(
        name="must_not_weighed_in_full_for_every_reference",
        file="qdrant_cir/search/query_model.py",
        old="-query.must_not_weight * reference.weight",
        new="-query.must_not_weight",
        tests=_LAWS,
    ),
    Fault(
        name="weights_not_normalised",
        file="qdrant_cir/search/query_model.py",
        old="[(reference, weight / total)",
        new="[(reference, weight)",
        tests=_LAWS,
    ),
    Fault(
        name="weights_left_out_of_stage_one",
        file="qdrant_cir/search/query_model.py",
        old="np.average(vectors, axis=0, weights=weights)",
        new="np.average(vectors, axis=0)",
        tests=_LAWS,
    ),
    Fault(
        name="groups_in_the_order_of_their_worst",
        file="qdrant_cir/search/ranking.py",
        old="(-hits[0].score, hits[0].image_id, str(hits[0].group))",
        new="(-hits[-1].score, hits[0].image_id, str(hits[0].group))",
        tests=_LAWS,
    ),
    Fault(
        name="groups_re_ranked_by_their_worst",
        file="qdrant_cir/search/ranking.py",
        old="best = [final_order([hit.point_id for hit in hits], scores)[0]",
        new="best = [final_order([hit.point_id for hit in hits], scores)[-1]",
        tests=_LAWS,
    ),
    Fault(
        name="groups_re_ranked_by_the_best_of_stage_one",
        file="qdrant_cir/search/ranking.py",
        old="best = [final_order([hit.point_id for hit in hits], scores)[0]",
        new="best = [hits[0].point_id",
        tests=_LAWS,
    ),
    Fault(
        name="ties_of_groups_as_the_store_gives_them",
        file="qdrant_cir/search/ranking.py",
        old="(-hits[0].score, hits[0].image_id, str(hits[0].group))",
        new="-hits[0].score",
        tests=_LAWS,
    ),
    Fault(
        name="ties_of_groups_of_one_member_as_the_store_gives_them",
        file="qdrant_cir/search/ranking.py",
        old="(-hits[0].score, hits[0].image_id, str(hits[0].group))",
        new="(-hits[0].score, hits[0].image_id)",
        tests=_LAWS,
    ),
    Fault(
        name="one_ask_for_all_copies_of_the_excluded_reference",
        file="qdrant_cir/search/path.py",
        old="        if len(places) >= wanted or count < asked:\n",
        new="        if asked:\n",
        tests=_READS,
    ),
    Fault(
        name="asked_again_where_the_store_has_no_more",
        file="qdrant_cir/search/path.py",
        old="        if len(places) >= wanted or count < asked:\n",
        new="        if len(places) >= wanted or asked > 1000:\n",
        tests=_READS,
    ),
    Fault(
        name="foreign_point_raises_in_rerank",
        file="qdrant_cir/search/path.py",
        old="                    strangers += 1\n",
        new='                    raise InputError("no image of ours")\n',
        tests=_LAWS,
    ),
    Fault(
        name="all_tokens_read_where_re_ranking_may_end_early",
        file="qdrant_cir/search/path.py",
        old="until = len(wanted) if stop.first_read is None or read_up_to else stop.first_read",
        new="until = len(wanted)",
        tests=_READS,
    ),
)
