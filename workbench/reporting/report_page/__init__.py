"""A run as one self-contained HTML file (`page.write_page`), and its tables as CSV or Parquet (`tables.write_tables`).

`workbench report` is the command; notebook and app call the same two functions.
"""
