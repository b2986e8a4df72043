"""`facerecon-rt bench`: how long a face takes here, in a report that others can check."""
