"""HTML: what a browser shows of a page, laid out as Markdown. Others come in by `file`.

`soup` takes the page apart, `forms` reads its fields, `looks` its style sheets; `layout` lays it out, and
`signs` travel through the layout for what Markdown has no words for.
"""
