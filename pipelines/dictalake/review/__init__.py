"""People at the transcripts: pages on which they hear, check and correct them. A server on this machine, no network."""
