"""Over real sockets: clients that are slow, never end, send headers without end or no HTTP at all, or do not
read. Each is told why, where it listens, and lets go."""

from __future__ import annotations
