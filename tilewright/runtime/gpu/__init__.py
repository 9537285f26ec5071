"""Programs on GPUs: drivers, and what runs a plan's PTX on one."""
