"""Extractors of a page's main text, one a file.

An extractor defines `Settings` and `extractor(settings)`, which gives a function from HTML and URL to text,
and `SECONDS_PER_PAGE` with `SECONDS_PER_BYTE` of HTML for the forecast.
"""
