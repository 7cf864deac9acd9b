"""`python -m sakuin` is the command `sakuin`."""

from sakuin.cli import main

main()
