"""iGSM problems as pure functions of a JAX key.

The class of grade-school problems of "Physics of Language Models" Parts 2.1 and 2.2
(arXiv 2407.20311, 2408.16293): a structure graph of items, parameters that depend on each other,
arithmetic modulo a small number, and a solution that is right step by step. Everything is made of
arrays of fixed shapes, so that `jit`, `vmap` and sharding apply, and problem `i` is a function of
`(seed, i)` and its `Spec` alone.

    from data_gen import keys, spec
    from data_gen.problems import search
    problem = search.sample(keys.problem_key(0, 0), spec.MED)

`spec` states a class, `settings` how settings are declared, `keys` names all random keys,
`interrupts` is how commands end early, and each of the wings uses those above it:

problems: what a problem is and how one is found.
solutions: what a solution says, right or wrong, from the grammar to a document of symbols.
text: reading, judging and mending what was written, without arrays.
windows: tokens and training windows.
picture: a problem's two graphs and its solution, drawn.
frozen: sets of problems in files, for TFDS, Hugging Face datasets and others.
"""

from data_gen import interrupts

interrupts.leave_while_imported()
