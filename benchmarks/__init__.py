"""Measuring the scheduler beside its peers; ``benchmarks/run`` starts it. Also a Django app, for its one command."""
