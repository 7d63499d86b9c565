"""Clients of the services that answer: one module a protocol, opened only when one is asked."""

from collections.abc import Mapping

from forecasting.calls import Client
from forecasting.registry import Registry


def open_clients(registry: Registry, credentials: Mapping[str, str]) -> dict[str, Client]:
    """A client for every service some model uses; ``credentials`` by the names services give."""
    used = {model.service for model in registry.models.values()}
    return {name: _open(registry, name, credentials) for name in sorted(used)}


def _open(registry: Registry, name: str, credentials: Mapping[str, str]) -> Client:
    service = registry.services[name]
    credential = credentials.get(service.credential, "")
    if service.protocol == "ollama":
        from forecasting.clients.ollama import Ollama

        return Ollama(service, credential)
    from forecasting.clients.openai import OpenAI

    return OpenAI(service, credential)
