"""Zhixing beside what people would use instead: the same data, network, batches, optimizer and epochs."""
