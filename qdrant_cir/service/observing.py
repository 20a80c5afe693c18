"""What can be watched from outside: Prometheus metrics, OpenTelemetry spans, and one line of log per request."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from qdrant_cir.search.gate import Gate
from qdrant_cir.types import SearchResult

__all__ = ["Metrics", "trace_steps"]

STEPS = ("encode", "compose", "retrieve", "fetch", "rerank")

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one service, for Prometheus."""

    def __init__(self, gate: Gate) -> None:
        """Count from zero; ``gate`` says how many queries run and wait."""
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"namespace": "qdrant_cir", "registry": self.registry}
        self._steps = Histogram("step_seconds", "Seconds of a step of a query.", ["step"], buckets=_BUCKETS, **made)
        self._requests = Histogram(
            "request_seconds", "Seconds of a request.", ["route", "status"], buckets=_BUCKETS, **made
        )
        self._searches = Counter("searches_total", "Queries answered, by how stage two ended.", ["mode"], **made)
        self._scored = Counter("candidates_scored_total", "Candidates that were re-ranked.", **made)
        self._misses = Counter("token_misses_total", "Candidates without valid tokens.", **made)
        self._waited = Histogram("waited_seconds", "Seconds that a query waited.", buckets=_BUCKETS, **made)
        Gauge("running", "Queries that are being answered.", **made).set_function(lambda: gate.running)
        Gauge("waiting", "Queries that wait.", **made).set_function(lambda: gate.waiting)

    def answered(self, result: SearchResult, *, waited: float, misses: int) -> None:
        """Count a query."""
        for step in STEPS:
            self._steps.labels(step).observe(getattr(result.timings, step))
        self._searches.labels(result.rerank_mode).inc()
        self._scored.inc(result.scored)
        self._misses.inc(misses)
        self._waited.observe(waited)

    def responded(self, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is a path as the service declares it, so that ids make no metrics."""
        self._requests.labels(route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self.registry)


def trace_steps(result: SearchResult) -> None:
    """Write the six steps of a query that has just ended as spans under the request's, which FastAPI makes.

    Their lengths are measured; they are laid one behind the other, up to now. Does nothing without OpenTelemetry's SDK.
    """
    tracer = trace.get_tracer("qdrant_cir.service")
    now = time.time_ns()
    start = now - int(result.timings.total * 1e9)
    for step in STEPS:
        end = start + int(getattr(result.timings, step) * 1e9)
        tracer.start_span(step, start_time=start).end(end)
        start = end
    order = tracer.start_span("order", start_time=start)
    order.set_attribute("qdrant_cir.scored", result.scored)
    order.set_attribute("qdrant_cir.rerank_mode", result.rerank_mode)
    order.end(now)
