from __future__ import annotations

from tiny_recipe import Recipe

HYBRID: dict[str, Recipe] = {}
