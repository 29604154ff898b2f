"""Stages of the GPU bundle: data, checks and trainings."""
