"""Measurement operators."""
