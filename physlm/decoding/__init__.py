"""Decoding: an engine that keeps many rows busy, and strategies that choose what is written."""
