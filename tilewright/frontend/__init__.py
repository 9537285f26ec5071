"""Python functions on arrays enter, graphs and compiled functions leave."""
