"""Training, decoding and judging small transformers on iGSM, sharded over a JAX mesh."""
