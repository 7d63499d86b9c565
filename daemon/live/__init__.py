"""The loop as a service: what comes in, how a restart recovers, what runs beside it."""
