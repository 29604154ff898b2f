"""Operators on point sets, ``(B, N, 3)``."""
