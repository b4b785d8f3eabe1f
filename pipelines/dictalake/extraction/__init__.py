"""Transcripts → structured findings by a language model, each with the words that said it."""
