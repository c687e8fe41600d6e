"""iGSM problems as pure functions of a JAX key.

The class of grade-school problems of "Physics of Language Models" Parts 2.1 and 2.2
(arXiv 2407.20311, 2408.16293): a structure graph of items, parameters that depend on
each other, arithmetic modulo a small number, and a solution that is right step by step.
Everything is made of arrays of fixed shapes, so that `jit`, `vmap` and sharding apply,
and problem `i` is a function of `(seed, i)` and its `Spec` alone.

    from data_gen import problem, spec
    p = problem.sample(jax.random.key(0), spec.Spec())

Rooms, in the order in which a problem is made: `spec`, `structure`, `slots`, `dependency`,
`distractors`, `arithmetic`, `solution`, `problem` (their sets are `bits`, their random words
`draws`). `mistakes` states which wrong steps a solution holds, `script` draws its sentences,
`slips` makes wrong ones and `sentences` works all of them out, in `lines` of one operation. Then
`language` and `render` write it as symbols, `tokenizer` makes tokens of these, `packing` and
`stream` make training windows, and `frozen` keeps sets as files. `labels` says what is known and
needed after every step, `features` what can be counted, `draw` draws it. From text, `reader` finds
a problem's facts, `parser` its arrays, `judge` says whether a solution is right, and `corrections`
mends a model's own wrong ones.
"""
