"""SpanValidator: gate 1, which accepts or rejects a version of a span."""
