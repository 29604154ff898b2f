"""Every reconstruction method, by name."""
