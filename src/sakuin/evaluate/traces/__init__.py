"""What a model's layers really see over a long text, and indexes measured on it.

`trace` is what is kept, `capture` makes one, `scaling` makes it longer than a machine can prefill. `compare`
puts indexes side by side by the error of the attention output, `search` by what they find, with Faiss and
hnswlib (`search_peers`) beside them.
"""
