"""What Prometheus is told of a service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters and times of one service, in a registry of their own.

    Labels hold names of models that are served and nothing a client has sent.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "salience_requests", "Requests answered.", ["model", "protocol", "status"], registry=self.registry
        )
        self.stages = Histogram(
            "salience_stage_seconds",
            "Time of each stage: queue, decode, infer (with waiting for its engine call), encode, total.",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "salience_batch_size",
            "Units in one engine call.",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.pictures = Counter("salience_pictures", "Pictures answered.", ["model"], registry=self.registry)
        self.in_flight = Gauge("salience_in_flight", "Requests that wait or run.", registry=self.registry)
        self.refused = Counter("salience_refused", "Requests refused since too many wait.", registry=self.registry)
        self.reloads = Counter(
            "salience_reloads", "Bundles opened or refused after a change.", ["model", "result"], registry=self.registry
        )
        self.ready = Gauge("salience_ready", "1 where a model is loaded and warm.", ["model"], registry=self.registry)
