"""What a problem is and how one is found."""
