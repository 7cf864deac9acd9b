"""Files that are whole or not there, locks between processes, archives, and where things are kept."""
