"""How good samples are: distances, judges, and the frame that every domain's evaluation runs in."""
