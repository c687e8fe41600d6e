"""The studies, one file each: a question, its configuration at every scale, and its runs."""
