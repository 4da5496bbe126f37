"""Rules a document may fail, small functions that measure one thing each; the stage holds the thresholds."""
