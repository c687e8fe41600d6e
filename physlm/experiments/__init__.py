"""Studies: finding them, running their sweeps, and reporting what came out."""
