"""Files that are whole or not there, locks between processes, and where things are kept."""
