"""Says whether studies can run here: `python -m physlm.doctor [--path DIR] [--set mesh.fsdp=2 …]`.

Tries, one after the other, all that a study needs, and prints a line for each: what was seen and,
where something is off, what to do about it. What is tried is small: a model of the scale `smoke`,
made as wide as the mesh needs. Nothing of it stays.
"""
