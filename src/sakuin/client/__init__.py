"""Asking a sakuin server from Python: contexts, questions, evidence. Needs no torch, and httpx alone."""

from sakuin.client.answers import Evidence, Reply
from sakuin.client.calls import ServerError
from sakuin.client.client import Client
from sakuin.client.contexts import Contexts

__all__ = ["Client", "Contexts", "Evidence", "Reply", "ServerError"]
