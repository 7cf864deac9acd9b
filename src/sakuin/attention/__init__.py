"""The mathematics: partial attention and its exact merge, and exact attention in blocks."""
