"""Values of protein backbones: the geometry of a chain of C-alpha atoms, and contigs."""
