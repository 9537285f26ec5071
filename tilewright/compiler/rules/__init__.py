"""The laws that ``passes/simplify.py`` applies: tables of named rules, one file per topic."""
