"""Circles live in spreadsheets today (R37): the way in from CSV and XLSX, and the way out with everything (R35).

Read `spreadsheets` (bytes to tables and back), then `cells` (what one cell says) and `columns` (what a file of each kind holds),
then `kinds` (what a row means for the circle) and `actions` (the plan of an import, carried out in one transaction). `model` keeps
an uploaded file between the preview and the import, for a day at most.
"""
