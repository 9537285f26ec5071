"""Graphs become kernels in memory: passes, fusion, schedules, buffer plan."""
