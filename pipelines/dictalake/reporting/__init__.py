"""The report of a run: numbers in, one HTML page out."""
