"""A context in files: `parts` is what it is made of, `manifest` what it says of itself, `fingerprint` what it
was made with, `disk` how files come to be there whole, `store` writing and reading them."""
