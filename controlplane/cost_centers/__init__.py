"""Cost centers: where finance books spending."""
