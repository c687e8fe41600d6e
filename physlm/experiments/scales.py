"""The scales at which every study can be run, each as changes of the published recipe."""

from typing import Any

NAMES = ("smoke", "quick", "night", "mini", "paper", "paper_hard")

# The scale of iGSM-hard, of whose recipe some numbers are no multiples of those for iGSM-med.
PAPER_HARD = "paper_hard"

# What differs from the defaults in every run. The defaults suit sampling, where all problems are
# wanted, and models built by hand on a CPU to compare numbers. A run has to leave the test problems
# out, and to be fast on an accelerator.
OF_A_RUN: dict[str, Any] = {"data.split": "train", "model.dtype": "bfloat16"}

# What each smaller scale changes of the published recipe.
CHANGES: dict[str, dict[str, Any]] = {
    # The published problem class up to op 8, and a model of 27M parameters: small enough for a
    # few runs on one accelerator chip within half an hour.
    "mini": {
        "data.max_op": 8,
        "data.max_edges": 15,
        "model.layers": 8,
        "model.heads": 8,
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_steps": 200,
        "train.steps": 2500,
        "train.batch": 128,
        "train.window": 512,
        "train.log_every": 50,
        "train.save_every": 500,
        "evaluate.problems": 1024,
        "evaluate.batch": 256,
        "evaluate.beyond": (9, 10, 11, 12),
        "evaluate.max_new_tokens": 768,
    },
    # Two CPU cores teach thirty million tokens in twelve minutes. The class is meant to be limited
    # by planning, what to compute next, and not by reading: up to seven edges between layers of two
    # items, but at most two terms in a sentence, each number of operations as likely as another,
    # small numbers, and one token for a whole parameter, which small models are slow to find by two
    # names. Canon layers let a token see those before it, without which retry data is far behind.
    # In so small a class texts repeat, so that templates without order keep the test problems out
    # of training. With so few names, other documents of a window would answer for the same
    # parameters, so attention stays within a document. Two heads of 32 and a long rotary base leave
    # most of a head unturned over a document, to match parameters by, which normalised queries and
    # keys learn sooner. Muon, a loss on solutions alone and initial weights as wide as the narrow
    # model wants them (0.02 is GPT-2's, for a width of 768) learn most from so few tokens; few
    # letters leave little that no model can predict.
    "quick": {
        "data.max_op": 6,
        "data.max_edges": 7,
        "data.max_depth": 3,
        "data.max_width": 2,
        "data.max_terms": 2,
        "data.op_draw": "uniform",
        "data.modulus": 5,
        "data.hierarchies": 1,
        "data.subcategories": 1,
        "data.names": 3,
        "data.letters": 12,
        "data.tokenizer": "parameter",
        "data.split_by": "problem",
        "model.layers": 4,
        "model.heads": 2,
        "model.head_dim": 32,
        "model.qk_norm": True,
        "model.canon": "AC",
        "model.rotary_base": 1e6,
        "model.rotary_fraction": 0.25,
        "model.init_std": 0.1,
        "model.dtype": "float32",
        "optimizer.name": "muon",
        "optimizer.learning_rate": 5e-3,
        "optimizer.warmup_steps": 100,
        "optimizer.weight_decay": 0.01,
        "train.steps": 12_000,
        "train.batch": 4,
        "train.window": 256,
        "train.loss_on": "solution",
        "train.attention": "document",
        "train.log_every": 200,
        "evaluate.problems": 1024,
        "evaluate.batch": 128,
        "evaluate.beyond": (7, 8),
        "evaluate.within": (1, 2, 3, 4, 5),
        "evaluate.max_new_tokens": 256,
    },
    # Seconds, for tests: everything runs, nothing is learnt.
    "smoke": {
        "data.max_op": 3,
        "data.max_edges": 6,
        "data.max_depth": 3,
        "data.max_width": 2,
        "data.modulus": 5,
        "data.hierarchies": 1,
        "data.subcategories": 1,
        "data.names": 3,
        "data.letters": 12,
        "model.layers": 2,
        "model.heads": 2,
        "model.head_dim": 8,
        "model.dtype": "float32",
        "optimizer.name": "muon",
        "optimizer.warmup_steps": 4,
        "train.steps": 20,
        "train.batch": 8,
        "train.window": 128,
        "train.loss_on": "solution",
        "train.log_every": 5,
        "train.save_every": 5,
        "evaluate.problems": 16,
        "evaluate.batch": 16,
        "evaluate.beyond": (4, 5),
        "evaluate.max_new_tokens": 96,
        "mesh.population": 8,
    },
}

# A model twice as wide as that of `quick`, on 3.3 times the tokens, in batches twice as large. What
# is left to learn then shows in the number of operations alone, so that problems of one and two,
# which have two and seven templates, are split by all that they state. Models half as wide do not
# tell what is wrong from what is right well enough to gain by it, on as many tokens or more.
OVERNIGHT: dict[str, Any] = {
    "data.statement_op": 2,
    "model.heads": 4,
    "optimizer.learning_rate": 3e-3,
    "train.steps": 20_000,
    "train.batch": 8,
    "train.save_every": 2000,
    "evaluate.beyond": (7, 8, 9, 10, 11, 12),
}
CHANGES["night"] = CHANGES["quick"] | OVERNIGHT

# Beside the defaults, which are the published recipe for iGSM-med.
CHANGES["paper"] = {"evaluate.reasked": (20,), "evaluate.window_tokens": "gpt2"}

# The published recipe for iGSM-hard: batches half as large for twice as many steps, in a longer
# window, which leaves less of the 2,048 tokens.
HARD: dict[str, Any] = {
    "data.max_op": 21,
    "data.max_edges": 28,
    "optimizer.weight_decay": 0.03,
    "train.steps": 200_000,
    "train.batch": 256,
    "train.window": 1024,
    "evaluate.beyond": (28, 29, 30, 31, 32),
    "evaluate.reasked": (28,),
    "evaluate.max_new_tokens": 1024,
}
CHANGES[PAPER_HARD] = CHANGES["paper"] | HARD
