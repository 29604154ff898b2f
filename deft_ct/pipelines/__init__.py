"""Reconstruction as a step in the pipelines of other libraries. Each module needs its library, an extra."""
