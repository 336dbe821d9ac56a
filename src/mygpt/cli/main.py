"""The command line: verbs for everyday work, and one command per technique, `mygpt STAGE TECHNIQUE`.

A shell without logic: each command parses, calls, and shows. Heavy modules are imported by the command that needs them.
"""

import json
import sys
from typing import Any

import typer

from mygpt import __version__
from mygpt.cli import records, work
from mygpt.cli.aligned import aligned
from mygpt.cli.constitutional import constitutional
from mygpt.cli.evaluation import add_evaluation
from mygpt.cli.race import race
from mygpt.cli.stages import add_stages
from mygpt.cli.studio import add_studio
from mygpt.core.errors import MygptError, from_os_error
from mygpt.training.out_of_memory import out_of_memory_told

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
_NO_MEMORY = "Use a smaller model, or smaller batches. Other programs on this machine may hold the memory too."


def build() -> Any:
    app = typer.Typer(
        name="mygpt",
        help="From a folder of documents to your own GPT: small, private, measured, on a machine you own.\n\nBegin with: mygpt up DIR",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Print the version.")) -> None:
        pass

    commands: tuple[Any, ...] = (work.init, work.up, work.add, work.chat, work.serve, race, aligned, constitutional)
    commands += (records.show, records.why, records.diff, records.rerun, records.verify, records.gc, records.where)
    for command in commands:
        app.command()(command)
    add_stages(app)
    add_evaluation(app)
    add_studio(app)
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mygpt {__version__}\n")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run one command; ends the process with 0 done, 1 failed, 2 wrong usage, 3 refused by a check."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        with out_of_memory_told(lambda: _NO_MEMORY):
            result = build().main(args=arguments, prog_name="mygpt", standalone_mode=False)
        if result == _INTERRUPTED:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
        sys.exit(result if isinstance(result, int) else 0)
    except MygptError as error:
        _fail(error.what, error.fix, error.exit_code, as_json=as_json)
    except OSError as error:
        told = from_os_error(error)
        _fail(told.what, told.fix, told.exit_code, as_json=as_json)
    except KeyboardInterrupt:
        _fail("Interrupted.", "Nothing is lost: the same command goes on where this one stopped.", _INTERRUPTED, as_json=as_json)
    except Exception as error:
        if type(error).__name__ == "Abort":
            _fail("Interrupted.", "Nothing is lost: the same command goes on where this one stopped.", _INTERRUPTED, as_json=as_json)
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        help_line = f"See `{context.command_path} --help`." if context else "See `mygpt --help`."
        _fail(error.format_message(), help_line, getattr(error, "exit_code", 2), as_json=as_json)


def _fail(what: str, fix: str, exit_code: int, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": what, "fix": fix, "exit_code": exit_code}, ensure_ascii=False) + "\n")
    sys.stderr.write(f"error: {what}\n  {fix}\n")
    sys.exit(exit_code)
