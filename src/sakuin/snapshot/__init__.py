"""A context in files: `part` is a piece of it and its name, `parts` what a cache is made of, `checks`
whether it is this model's, `manifest` what a context says of itself, `part_files` the files in a folder,
`store` writing and reading one context."""
