"""Baselines of other libraries and papers, each tuned as hard as ours (``eval.tuning.tune_baselines``)."""
