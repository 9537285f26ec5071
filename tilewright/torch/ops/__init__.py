"""The rows of the operator table, one file per family."""
