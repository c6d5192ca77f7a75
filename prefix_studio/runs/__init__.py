"""The durable queue: table, supervisor, one process an attempt."""
