"""What is judged, one file a domain: data set, measurement, metrics and defaults in the units of the domain."""
