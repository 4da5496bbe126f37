"""Web pages from archives and folders: reading records, undoing transfer codings, decoding charsets."""
