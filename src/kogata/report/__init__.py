"""Reads receipts and artifacts: pages, tables, cards, the live screen."""
