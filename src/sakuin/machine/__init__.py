"""What this machine is: its CPU, its memory, its devices, and how threads share its cores."""
