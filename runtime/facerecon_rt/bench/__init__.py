"""`facerecon-rt bench`: measure the time per face on this machine, with a report that others can check."""
