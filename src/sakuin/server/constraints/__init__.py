"""Answers that must have a form: JSON by a schema, and calls of tools."""
