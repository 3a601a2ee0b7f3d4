"""Blocks that several architectures share. Nothing here knows of columns, recipes or encoders."""
