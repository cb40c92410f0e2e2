"""The commands of `python -m app`, one a module: `main(arguments)` answers the exit status (see `app/__main__.py`)."""
