"""Slow, short statements of what the native code does, and real data to hold the two against each other."""
