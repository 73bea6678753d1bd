"""References with error bounds, probe directions, comparison and localisation. Knows no framework and no case."""
