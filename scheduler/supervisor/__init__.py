"""The process that is the parent of one run's program, and the protocol of the run folder.

Standard library only: no Django, no database. The poller is never the parent of a task; each run has its own
supervisor, in its own session, which outlives a restart, a crash or an upgrade of the poller. Whoever wants to know
what became of a run reads its folder (``folder``) and asks the kernel (``processes``).
"""
