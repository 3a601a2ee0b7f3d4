"""``zhixing estimate``, and what every run writes of the same kind."""
