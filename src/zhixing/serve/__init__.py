"""Serve runs over HTTP: batches of rows, explanations, texts as they are written."""
