"""What a context will take, and whether this machine has it: memory, disk, and a report of both."""
