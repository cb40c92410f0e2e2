"""`python -m app COMMAND`: what operators run beside the processes of the Procfile.

Exit status: 0 good, 1 something is wrong, 2 the command could not do its work. The last line of output says so in a
sentence.
"""

from __future__ import annotations

import sys
from importlib import import_module

from config import ConfigError

COMMANDS = {  # each a module of app.commands
    "backup": "write the database into one file, while Portico runs",
    "doctor": "check settings, stores and the machine, and say how to fix what is wrong",
    "restore": "load such a file into an empty database",
}


def main(arguments: list[str]) -> int:
    """Run the command that the first word names."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        lines = [f"  {known:10}{what}" for known, what in COMMANDS.items()]
        print("\n".join(["usage: python -m app COMMAND ... (COMMAND --help tells more)", *lines]), file=sys.stderr)
        return 2
    try:
        status: int = import_module(f"app.commands.{name}").main(arguments[1:])
        return status
    except ConfigError as error:
        print(f"The settings are wrong: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
