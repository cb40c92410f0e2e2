"""`python -m app COMMAND`: what operators run beside the processes of the Procfile.

Exit status: 0 good, 1 something is wrong, 2 the command could not do its work. The last line of output says so in a
sentence.
"""

from __future__ import annotations

import sys
from importlib import import_module

from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import DomainError
from app.runtime import logs
from config import ConfigError

COMMANDS = {  # each a module of app.commands
    "audit": "check that the audit log is as it was written",
    "backup": "write the database into one file, while Portico runs",
    "config": "bring providers, models and endpoints to what a file says",
    "doctor": "check settings, stores and the machine, and say how to fix what is wrong",
    "encryption": "seal every secret with another key",
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
    except DomainError as error:
        print(
            f"This could not be done: {error.field}: {error.message}"
            if error.field
            else f"This could not be done: {error.message}"
        )
    except (SQLAlchemyError, RedisError) as error:
        print(f"This could not be done: {logs.masked(str(error).splitlines()[0])}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
