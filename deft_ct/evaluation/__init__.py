"""How methods are judged: problems, metrics, statistics, tuning."""
