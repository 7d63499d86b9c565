"""Where code that a model wrote is run: never in our process, and nowhere that is not locked."""

from forecasting.sandbox.port import End, Limits, Ran, Sandbox, SandboxUnavailable, choose

__all__ = ["End", "Limits", "Ran", "Sandbox", "SandboxUnavailable", "choose"]
