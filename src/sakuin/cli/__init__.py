"""The command line: thin, one file per group of commands."""


def main() -> None:
    """Entry point of `sakuin`."""
