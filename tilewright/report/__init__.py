"""What a compile did, as tables."""
