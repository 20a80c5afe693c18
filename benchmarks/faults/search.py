"""Faults of search and of training."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_SESSIONS = ("tests/unit/test_sessions.py",)
_BUDGET = ("tests/unit/test_time_budget.py",)
_EFFORT = ("tests/unit/test_effort.py",)
_READS = ("tests/congruence/test_reads.py",)
_TIES = ("tests/unit/test_ties.py",)
_METRICS = ("tests/unit/test_evaluation_metrics.py",)
_UPDATES = ("tests/export/test_updates.py",)
_GOLDEN = ("tests/export/test_golden_losses.py",)
_FAMILIES = ("tests/export/test_families.py",)
_VERIFY = (
    "tests/export/test_export.py::test_verification_notices_another_order_of_candidates_though_every_score_is_close_enough",
)

FAULTS = (
    Fault(
        "spinning_threads",
        "qdrant_cir/model/sessions.py",
        'add_session_config_entry("session.intra_op.allow_spinning", "0")',
        'add_session_config_entry("session.intra_op.allow_spinning", "1")',
        _SESSIONS,
    ),
    Fault(
        "spinning_threads_by_default",
        "qdrant_cir/model/sessions.py",
        '    options.add_session_config_entry("session.inter_op.allow_spinning", "0")\n',
        "",
        _SESSIONS,
    ),
    Fault(
        "waiting_charged_to_the_budget_side_by_side",
        "qdrant_cir/storage/steps.py",
        "                path.watch.stop()\n                computing[",
        "                computing[",
        _BUDGET,
    ),
    Fault(
        "waiting_charged_to_the_timings",
        "qdrant_cir/storage/steps.py",
        "    finally:\n        watch.stop()\n",
        "    finally:\n        watch.start()\n",
        _BUDGET,
    ),
    Fault(
        "step_begun_that_cannot_end_in_time",
        "qdrant_cir/search/path.py",
        "read_up_to and spent + longest > stop.time_budget",
        "read_up_to and spent > stop.time_budget",
        _BUDGET,
    ),
    Fault(
        "step_begun_after_a_read_that_left_too_little_time",
        "qdrant_cir/search/path.py",
        "            if stop.time_budget is not None and spent + longest > stop.time_budget:\n",
        "            if stop.time_budget is not None and spent > stop.time_budget:\n",
        _BUDGET,
    ),
    *(
        Fault(
            f"budget_starts_{begins}_{where}",
            "qdrant_cir/search/path.py",
            f'("retrieve", "fetch", "rerank"))\n{then}',
            f"({steps}))\n{then}",
            _BUDGET,
        )
        for begins, steps in (
            ("at_the_re_ranking", '"fetch", "rerank"'),
            ("at_the_encoding", '"encode", "retrieve", "fetch", "rerank"'),
        )
        for where, then in (
            ("before_a_step", "        if stop.time_budget is not None and read_up_to"),
            ("after_a_read", "            if stop.time_budget is not None and spent +"),
        )
    ),
    Fault(
        "reading_left_out_of_the_step_that_needs_it",
        "qdrant_cir/search/path.py",
        "longest = max(longest, took + laps",
        "longest = max(longest, laps",
        _BUDGET,
    ),
    Fault(
        "conformal_bound_without_one",
        "qdrant_cir/search/effort_calibration.py",
        "(total + 1) / (len(stopped) + 1)",
        "total / len(stopped)",
        _EFFORT,
    ),
    Fault(
        "conformal_bound_without_the_lost_one",
        "qdrant_cir/search/effort_calibration.py",
        "(total + 1) / (len(stopped) + 1)",
        "total / (len(stopped) + 1)",
        _EFFORT,
    ),
    Fault(
        "no_spare_hit_for_the_excluded_reference",
        "qdrant_cir/search/path.py",
        "asked = wanted + (1 if options.exclude_reference else 0)",
        "asked = wanted",
        _READS,
    ),
    Fault(
        "ties_of_stage_one_as_the_store_gives_them",
        "qdrant_cir/search/ranking.py",
        "key=lambda image_id: (-scores[image_id], image_id)",
        "key=lambda image_id: -scores[image_id]",
        _TIES,
    ),
    *(
        Fault(
            f"ties_of_stage_two_{name}",
            "qdrant_cir/search/ranking.py",
            "sorted((key for key in retrieved if key in scores), key=lambda key: -scores[key])",
            f"sorted({order})",
            tests,
        )
        for name, order, tests in (
            ("by_id", "(k for k in retrieved if k in scores), key=lambda k: (-scores[k], str(k))", _METRICS),
            ("the_other_way_round", "(k for k in [*retrieved][::-1] if k in scores), key=lambda k: -scores[k]", _TIES),
        )
    ),
    Fault(
        "embedding_not_held",
        "onnx_export/training/drawn/family_round.py",
        'return {"part": seen, "held": HELD_WEIGHT * held}',
        'return {"part": seen, "_held": HELD_WEIGHT * held}',
        _FAMILIES,
    ),
    Fault(
        "embedding_held_at_no_weight",
        "onnx_export/training/drawn/family_round.py",
        '"held": HELD_WEIGHT * held}',
        '"held": 0 * held}',
        _FAMILIES,
    ),
    Fault(
        "embedding_held_by_the_projection_alone",
        "onnx_export/training/drawn/family_round.py",
        "self.model.image_encoder.vision_proj(tokens[:, 0])",
        "self.model.image_encoder.vision_proj(tokens[:, 0].detach())",
        _FAMILIES,
    ),
    Fault(
        "order_not_verified",
        "onnx_export/verify.py",
        "            _check_order(what, expected.numpy(), scores, tolerance)\n",
        "",
        _VERIFY,
    ),
    *(
        Fault(f"{name}_{seen_by}", "onnx_export/training/updates.py", old, new, tests)
        for name, old, new in (
            ("constant_rate", "self.schedule.rate(self.done)", "self.schedule.learning_rate"),
            ("no_clipping", "        self._accelerator.clip_grad_norm_(self.modules.parameters(), 1.0)\n", ""),
            ("decay_on_biases", '< 2], "weight_decay": 0.0}', '< 2], "weight_decay": schedule.weight_decay}'),
        )
        for seen_by, tests in (("in_one_update", _UPDATES), ("in_a_stage", _GOLDEN))
    ),
    Fault(
        "no_warm_up",
        "onnx_export/training/updates.py",
        "return self.learning_rate * (step + 1) / self.warmup",
        "return self.learning_rate",
        _UPDATES,
    ),
)
