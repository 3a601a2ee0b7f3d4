"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import MissingExtraError

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingExtraError("prometheus_client", "serve", purpose="serving") from error
        self.prometheus: Any = prometheus
        registry = self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "zhixing_requests", "Requests by path and status.", ("path", "status"), registry=registry
        )
        self.seconds = prometheus.Histogram(
            "zhixing_request_seconds", "From the head of a request to the end of its answer.", ("path",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.refused = prometheus.Counter(
            "zhixing_refused", "Requests and connections that were refused, by reason.", ("reason",), registry=registry
        )
        self.rows = prometheus.Counter("zhixing_rows", "Rows that a model answered.", ("model",), registry=registry)
        self.sizes = prometheus.Histogram(
            "zhixing_batch_rows", "Rows of a batch.", ("model",), buckets=SIZES, registry=registry
        )
        self.model_seconds = prometheus.Histogram(
            "zhixing_batch_seconds", "Time that a model took for a batch.", ("model",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.cancelled = prometheus.Counter(
            "zhixing_cancelled_rows", "Rows that were dropped since nobody waited for them.", registry=registry
        )
        self.tokens = prometheus.Counter("zhixing_tokens", "Pieces of text written.", ("model",), registry=registry)
        prometheus.ProcessCollector(registry=registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is read when it is asked for."""
        self.prometheus.Gauge(f"zhixing_{name}", text, registry=self.registry).set_function(value)

    def batch(self, model: str, rows: int, seconds: float) -> None:
        self.rows.labels(model).inc(rows)
        self.sizes.labels(model).observe(rows)
        self.model_seconds.labels(model).observe(seconds)

    def request(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """The page of all figures, and its media type."""
        return self.prometheus.generate_latest(self.registry), self.prometheus.CONTENT_TYPE_LATEST
