"""Steps that the experiments in ``benchmarks/experiments`` share."""
