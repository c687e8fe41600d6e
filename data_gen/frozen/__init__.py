"""Frozen sets: problems in files, for those who train or compare models elsewhere.

rows: which problems a set has, the same ones in every format.
igsm: the set as a TensorFlow Datasets (TFDS) builder, found by the name `igsm`.
files: its rows as JSON lines or Parquet.
card: what a reader has to know of it.
directory: where it is written, whole or not at all.
"""
