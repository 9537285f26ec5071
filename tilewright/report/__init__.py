"""What a person reads: the stages of a compile, a graph's text at work, the installation."""
