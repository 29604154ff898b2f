"""Values that only CT has: Hounsfield scale, volumes, scans."""
