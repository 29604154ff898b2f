"""deft-ct."""
