"""Parts of the command line: options, outputs, messages, progress, and the commands build, doctor, mesh and models."""
