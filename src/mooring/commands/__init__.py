"""The command line's groups: what an operator does without a running server, or beside one."""
