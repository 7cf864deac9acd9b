"""The page that people meet: static files."""
