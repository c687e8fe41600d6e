"""Studies: finding them, running their sweeps, and reporting what came out.

The commands are `sweep`, `status`, `report` and `evaluate`; `options` and `arguments` parse their
command lines. The other modules, by what they are about:

what is asked for: `registry` finds a study, `conditions` and `scales` are what studies are made of,
  `config` has all settings, `manual` explains them, `plan` makes runs and evaluations of a study,
  `selection` chooses among them.
what a run is: `run` and `evaluation`, with `identity`, `ancestry` (parents), `adoption` (parents of
  Hugging Face), `records` (what it is trained on beside fresh problems), `weights` and `versions`.
doing it: `execution` trains and judges, `queue` and `leases` divide work among processes, `cluster`
  among the nodes of a Ray cluster; `logs` sends metrics elsewhere, `repair` mends damaged files.
what it takes: `estimate`, `memory`, `pace`, and `tree`, which a dry run prints.
where it is: `store` and `view`, with `files`.
what came out: `results`, `outcomes`, `accounts` and `material` read it, `summary` merges seeds,
  `inference`, `comparison` and `fits` are the statistics, `verdicts`, `tables`, `figures`, `page`,
  `show`, `card` and `published` (the paper's numbers) present it; `overlap` counts test problems in
  training, and `standing` says how far runs have come.
"""
