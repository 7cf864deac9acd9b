"""Who asks: keys, what each may do, and what is written down of it."""
