"""Parts of the command line: its options, its progress display, and the commands `build` and `doctor`."""
