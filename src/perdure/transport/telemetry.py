"""A recovery as an event on the current OpenTelemetry span, where the app has OpenTelemetry."""

from __future__ import annotations

from perdure.model import Recovery


def record(recovery: Recovery) -> None:
    """Add the event ``perdure.recovery``; ids and counts only, nothing that anybody said."""
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
    except ImportError:
        return
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(
            "perdure.recovery",
            {
                f"perdure.{key}": member
                for key, member in recovery.as_member().items()
                if member is not None
            },
        )
