"""PDF: its pages taken apart and their text put in reading order. Others come in by `file`.

`file` says what is lost. `pdfium` takes the pages apart: `letters` has the words of a page, `annotations`,
`placing` and `rules` what was put and drawn on it, `columns`, `running` and `by_column` the order of its
lines, `empty` the empty cells of tables. `headings` finds headings, `pages` makes running text.
"""
