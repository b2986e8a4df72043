"""The command line: its options, progress, `build` and `doctor`."""
