"""Logs as JSON, a line an event: what happened and how long it took, never what a client has sent."""

import json
import logging
import time

# What every record of Python's logging has of its own.
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, event, and the fields given with `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        fields |= {"event": record.getMessage()}
        fields |= {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return json.dumps(fields, default=str)


def log_as_json() -> None:
    """Send the service's own events, and warnings of everything else, to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("salience").setLevel(logging.INFO)
    # KServe logs every failed request with its trace; each is told once, by the service.
    for name in ("kserve", "kserve.trace", "grpc_interceptor"):
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
        other.setLevel(logging.CRITICAL)
