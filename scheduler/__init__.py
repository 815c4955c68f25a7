"""Define, schedule, watch and stop tasks from the Django admin."""

__version__ = "0.1.0"
