"""What the figures in the docs come from. See README.md beside this file."""
