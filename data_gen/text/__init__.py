"""From text to facts: reading, judging and mending what was written.

Reader and judge work on texts alone and need no JAX. Letters in names of arrays are those of
`data_gen.solutions`.
"""
