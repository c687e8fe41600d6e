"""The code that goes with exported models of which no class of transformers computes the same.

Exported directories hold copies of these modules; they import torch and transformers alone.
"""
