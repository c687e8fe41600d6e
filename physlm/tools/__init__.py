"""Estimates for planning a run: what training on an accelerator should take."""
