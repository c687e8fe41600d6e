"""What a solution says, right or wrong, from its grammar to its tokens."""
