"""From text to facts: reading, judging and mending what was written."""
