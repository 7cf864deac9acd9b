"""The version, here alone: the package's metadata and `sakuin.__version__` are read from this file."""

__version__ = "0.1.0"
