"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from .check import check
from .data import data_app
from .demo import demo
from .diagnose import diagnose
from .export import export
from .imports import import_command
from .listing import list_command
from .plot import plot
from .policies import evaluate, export_policy
from .render import render
from .report import report
from .run import run
from .status import status
from .table import table

app = typer.Typer(
    name="mopo-bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.command("list")(list_command)
app.command()(run)
app.command()(status)
app.command()(table)
app.command()(plot)
app.command()(report)
app.command()(export)
app.command("import")(import_command)
app.command()(check)
app.command()(evaluate)
app.command()(diagnose)
app.command("export-policy")(export_policy)
app.command()(render)
app.command()(demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"mopo-bench {version('mopo-bench')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error in the input.")]


@app.callback()
def options(
    version: Version = False,
    debug: Debug = False,  # `main` takes it out before, so that it may stand anywhere
) -> None:
    """Regenerates Tables 1 and 2 of MOPO (Yu et al., NeurIPS 2020), and takes your algorithm beside them.

    Exit status: 0 all well; 1 `check` found a regression; 2 the command line, a setting or a file is wrong, or the
    output cannot be written, in one line; 3 `run`: some runs failed, diverged, are damaged or not finished, `check`: it could
    not decide; 70 a bug, with its traceback; 130 stopped by Ctrl-C, 143 by SIGTERM; 141 nobody reads the output.
    """
