"""Tokens, training windows and frozen sets."""
