"""The entry point of `mopo-bench`. What takes long to import is imported where Ctrl-C is answered already."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from ..runs.interrupts import FAREWELL, interrupts_held, leave_if_asked, note_interrupts

CLOSED = 141  # 128 + SIGPIPE, as the shell says of any program whose reader has gone
BUG = 70  # not 1, which is a check that found a regression
LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RENAMED = {"--batch": "--dataset"}  # options that are still accepted under a former name


def main() -> None:
    """Runs one command. Its exit status: see `app.options`; 2 is a full disk, too."""
    debug = "--debug" in sys.argv
    arguments = [renamed(argument) for argument in sys.argv[1:] if argument != "--debug"]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        note_interrupts()
        code = _answer(arguments, debug)
    except KeyboardInterrupt:
        code = 130
    if code == 130:  # typer itself turns Ctrl-C into this
        leave_if_asked()
        complain(FAREWELL)  # said no to a question
    try:
        sys.stdout.flush()
    except OSError as error:
        code = unwritten(error)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    sys.exit(code)


def unwritten(error: OSError) -> int:
    """The exit status of a command whose output cannot be written: never that of a check that found a regression."""
    _silence(sys.stdout)
    if isinstance(error, BrokenPipeError):  # `| head` has seen enough
        return CLOSED
    complain(f"the output could not be written: {error.strerror or error}")
    return 2


def _silence(stream: TextIO) -> None:
    """What a stream still holds goes nowhere: Python would complain of it at its exit, and make the status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def renamed(argument: str) -> str:
    """An option under its present name; one line on standard error says so where a former one was typed."""
    name, equals, value = argument.partition("=")
    if name not in RENAMED:
        return argument
    complain(f"{name} is now called {RENAMED[name]}")
    return RENAMED[name] + equals + value


def _answer(arguments: list[str], debug: bool) -> int:
    with interrupts_held():
        import traceback

        import typer

        from ...common.errors import UserError
        from ...common.notices import notices_shown
        from .app import app

    try:
        with notices_shown():
            code = app(arguments, standalone_mode=False)
    except UserError as error:
        if debug:
            traceback.print_exc()
        complain(str(error))
        return 2
    except typer.Abort:
        return 130
    except SystemExit as error:  # typer gives its own exits back, but for `| head`, which has seen enough
        if isinstance(error.__context__, BrokenPipeError):
            return CLOSED
        complain(f"code from outside this package ended the program by sys.exit({error.code!r}); --debug shows where")
        if debug:
            traceback.print_exc()
        return 2
    except OSError as error:
        if error.filename is None and error.errno not in LOST:
            return bug()
        if debug:
            traceback.print_exc()
        if error.filename is None:  # what else is written is so by `replace_file`, and has a name
            return unwritten(error)
        complain(f"{error.filename}: {error.strerror or error}; --debug shows where it was needed")
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: a wrong option or argument
            return bug()
        complain(usage(error))
        return 2
    return code if isinstance(code, int) else 0


def usage(error: Any) -> str:
    """What click says of a wrong option, argument or command, with the nearest command."""
    import difflib
    import re

    from .app import app

    message = error.format_message().replace("\n", " ").replace("Value error, ", "")
    if "unexpected extra argument" in message:
        message += ": several names or numbers of one option are separated by commas, as in --seeds 0,1"
    if error.__class__.__name__ == "NoSuchCommand" or "No such command" in message:
        commands = [command.name or "" for command in app.registered_commands] + ["data"]
        near = difflib.get_close_matches(message.split("'")[1], commands, n=1)
        message += f" Did you mean {near[0]}?" if near and "Did you mean" not in message else ""
    if wrong := re.search(r": '(.*)' is not one of (.*)\.$", message):
        near = difflib.get_close_matches(wrong[1], re.findall(r"'(.*?)'", wrong[2]), n=1, cutoff=0.4)
        message += f" Did you mean {near[0]}?" if near else ""
    return message


def bug() -> int:
    """Shows where the exception at hand comes from; gives the exit status."""
    import traceback

    with suppress(OSError):
        traceback.print_exc()
    return BUG


def complain(message: str) -> None:
    with suppress(OSError):  # where nobody can be told the exit status still can
        print(f"mopo-bench: {' '.join(message.split())}", file=sys.stderr, flush=True)
