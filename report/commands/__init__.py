"""One file a command: its docstring is the help; `add_arguments(parser)`, `run(args)` -> the paths written."""
