"""Operators on images: masks, blurs, sub-sampling, tone curves and the conventions of the field."""
