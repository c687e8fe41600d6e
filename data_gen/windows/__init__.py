"""Tokens and training windows."""
