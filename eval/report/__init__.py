"""The report that a person reads: one HTML file that asks for nothing from outside."""
