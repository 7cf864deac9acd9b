"""E-mails and web archives (MIME): the words of a message and of those in it. Others come in by `file`.

`decoding` makes text of headers and parts, `file` puts them together.
"""
