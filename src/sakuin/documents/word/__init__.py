"""Word documents (WordprocessingML), read so that what a reader of the page sees is in the text. Others come
in by `file`.

`parts` opens the file, `styles` and `numbering` say how a run looks and which number a paragraph shows,
`inline` reads a paragraph, `fields`, `drawings` and `symbols` what stands in it beside letters, `blocks`
paragraphs and tables, `asides` notes, comments and page headers. `file` puts it together.
"""
