"""From any source to batches: table, sources, split, store, batches, catalogue."""
