"""What Prometheus reads of the local server."""

import prometheus_client as prometheus


class Counters:
    """Requests, their seconds, and the rows of each run; one registry a server."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        labels = ("model", "method")
        self.requests = prometheus.Counter(
            "tfft_requests", "Requests answered.", (*labels, "code"), registry=self.registry
        )
        self.seconds = prometheus.Histogram(
            "tfft_request_seconds", "From the first byte read to the answer.", labels, registry=self.registry
        )
        self.rows = prometheus.Histogram(
            "tfft_run_rows",
            "Rows in one run of a model.",
            ("model",),
            registry=self.registry,
            buckets=[2**n for n in range(11)],
        )

    def answered(self, model: str, method: str, code: int, seconds: float) -> None:
        """One request."""
        self.requests.labels(model, method, code).inc()
        self.seconds.labels(model, method).observe(seconds)

    def ran(self, model: str, rows: int) -> None:
        """One run of a model."""
        self.rows.labels(model).observe(rows)

    def text(self) -> tuple[bytes, str]:
        """All of them as Prometheus reads them, and the content's type."""
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST
