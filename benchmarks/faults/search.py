"""Faults of search and of training."""

from __future__ import annotations

from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

_SESSIONS = ("tests/unit/test_sessions.py",)
_BUDGET = ("tests/unit/test_time_budget.py",)
_EFFORT = ("tests/unit/test_effort.py",)
_RETRIEVER = ("tests/unit/test_retriever.py",)
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
        "waiting_charged_to_the_budget",
        "qdrant_cir/search/ranking.py",
        "        self.started += now - self._last\n",
        "",
        _BUDGET,
    ),
    Fault(
        "waiting_charged_to_the_timings",
        "qdrant_cir/search/ranking.py",
        "        self.started += now - self._last\n        self._last = now\n",
        "        self.started += now - self._last\n",
        _BUDGET,
    ),
    Fault(
        "step_begun_that_cannot_end_in_time",
        "qdrant_cir/search/scoring.py",
        "began - started + longest > stop.time_budget",
        "began - started > stop.time_budget",
        _BUDGET,
    ),
    Fault(
        "budget_starts_at_the_re_ranking",
        "qdrant_cir/search/ranking.py",
        "started=clock.started, clock=clock.read",
        "started=clock.read(), clock=clock.read",
        _BUDGET,
    ),
    Fault(
        "budget_starts_at_the_encoding",
        "qdrant_cir/retriever.py",
        "        clock = StageClock(read=self._clock)\n",
        "        clock = StageClock(read=self._clock)\n        clock.started = started\n",
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
        "qdrant_cir/search/ranking.py",
        "max(self.limit, self.rerank_depth) + (1 if self.exclude_reference else 0)",
        "max(self.limit, self.rerank_depth)",
        _RETRIEVER,
    ),
    Fault(
        "ties_of_stage_one_as_the_store_gives_them",
        "qdrant_cir/search/ranking.py",
        "key=lambda hit: (-hit.score, hit.image_id)",
        "key=lambda hit: -hit.score",
        _TIES,
    ),
    Fault(
        "ties_of_stage_two_by_image_id",
        "qdrant_cir/search/ranking.py",
        "(-scores[hit.image_id], places[hit.image_id])",
        "(-scores[hit.image_id], hit.image_id)",
        _TIES,
    ),
    Fault(
        "ties_of_stage_two_the_other_way_round",
        "qdrant_cir/search/ranking.py",
        "(-scores[hit.image_id], places[hit.image_id])",
        "(-scores[hit.image_id], -places[hit.image_id])",
        _TIES,
    ),
    Fault(
        "ties_of_stage_one_as_written_in_evaluation",
        "qdrant_cir/evaluation/runs/rankings.py",
        "key=lambda image: (-image.score, image.image_id)",
        "key=lambda image: -image.score",
        _METRICS,
    ),
    Fault(
        "ties_of_stage_two_by_image_id_in_evaluation",
        "qdrant_cir/evaluation/runs/rankings.py",
        "(-scores[image_id], places[image_id])",
        "(-scores[image_id], image_id)",
        _METRICS,
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
