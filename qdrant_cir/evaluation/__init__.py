"""Evaluation of composed retrieval on FashionIQ, CIRR, CIRCO, drawn catalogues and custom queries.

A reader returns a :class:`Benchmark`; :func:`evaluate` runs it through :class:`qdrant_cir.Retriever` and reports.
"""

from qdrant_cir.evaluation.datasets.benchmark import Average, Benchmark, EvaluationPart, EvaluationQuery
from qdrant_cir.evaluation.datasets.circo import read_circo
from qdrant_cir.evaluation.datasets.cirr import read_cirr
from qdrant_cir.evaluation.datasets.custom import read_custom
from qdrant_cir.evaluation.datasets.drawn import read_drawn
from qdrant_cir.evaluation.datasets.fashioniq import read_fashioniq
from qdrant_cir.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate
from qdrant_cir.evaluation.metrics import Answer, AveragePrecision, Metric, Recall, Truth
from qdrant_cir.evaluation.report.circo_submission import read_circo_submission, write_circo_submission
from qdrant_cir.evaluation.report.cirr_submission import write_cirr_submission
from qdrant_cir.evaluation.report.contents import EvaluationReport
from qdrant_cir.evaluation.report.files import report_json
from qdrant_cir.evaluation.runs.scoring import QueryScores, score_answers, score_rankings

__all__ = [
    "Answer",
    "Average",
    "AveragePrecision",
    "Benchmark",
    "Evaluation",
    "EvaluationPart",
    "EvaluationQuery",
    "EvaluationReport",
    "EvaluationSettings",
    "Metric",
    "QueryScores",
    "Recall",
    "Truth",
    "evaluate",
    "read_drawn",
    "read_circo",
    "read_circo_submission",
    "read_cirr",
    "read_fashioniq",
    "read_custom",
    "report_json",
    "score_answers",
    "score_rankings",
    "write_circo_submission",
    "write_cirr_submission",
]
