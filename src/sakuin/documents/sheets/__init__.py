"""Tables in files of their own: workbooks and CSV, each row a line. Others come in by `file`.

`file` reads workbooks. What their XML says beside the values is found by `workbook` (XLSX) and `opendocument`
(ODS), and held by `cells`; `figures` writes numbers as they are shown. `delimited` reads CSV. `rows` makes a
row a line.
"""
