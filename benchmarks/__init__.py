"""What things cost: measured as ratios within one run, never decided in a test."""
