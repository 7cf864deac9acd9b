"""Contexts over HTTP: whose they are, and how they come to be read."""
