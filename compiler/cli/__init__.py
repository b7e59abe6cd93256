"""The command line: one file a command. Results go to stdout, talk to stderr; `main` says what the exit codes mean."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import lvc
from lvc.compiler.cli.console import Console
from lvc.compiler.errors import CompileError, LvcError, UsageError, did_you_mean
from lvc.compiler.pipeline.ranks import ALONE, Ended, Ranks, are_started, join, lost

COMMANDS = (
    "compile",
    "opt",
    "run",
    "bench",
    "tune",
    "eval",
    "compare",
    "inspect",
    "sensitivity",
    "recipe",
    "passes",
    "targets",
    "serve-device",
)

DIVIDED = ("compile", "opt", "eval", "sensitivity")
"""Commands that several processes do together, as ``torchrun`` starts them; of the others one of them does all."""

_EPILOG = """\
examples:
  lvc compile torchvision.models:resnet18 -o r18.lvc --check
  lvc run r18.lvc photo.jpg
  lvc bench r18.lvc --against onnxruntime,torch

exit codes: 0 done, 1 the model could not be compiled, 2 wrong usage, 3 a check failed, 70 a defect of lvc
"""


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes look like every other error, with a suggestion where something looks alike. Options are
    written out, for the beginning of one may be that of another one tomorrow, and may stand between files."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self._is_mixing = False

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, help=f"'{self.prog} --help' shows what can be given")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        args = sys.argv[1:] if args is None else args
        if self._is_mixing or self._subparsers or _needs_end(args):
            found, rest = super().parse_known_args(args, namespace)
        else:
            self._is_mixing = True  # argparse parses twice for that: options, and then the rest
            try:
                found, rest = self.parse_known_intermixed_args([text for text in args if text != "--"], namespace)
            finally:
                self._is_mixing = False
        if not rest or self._is_mixing:
            return found, rest
        option = next((text.partition("=")[0] for text in rest if text.startswith("-")), None)
        if option is None:
            self.error(f"nothing takes {shlex.join(rest)}")
        hint = did_you_mean(option, self._option_string_actions)
        raise UsageError(
            f"'{self.prog}' has no option {option}", help=f"{hint}'{self.prog} --help' shows what can be given"
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(map(str, action.choices))
        option = "/".join(action.option_strings)
        what = f"{option} cannot be" if option else f"there is no {str(action.metavar).lower()}"
        raise UsageError(f"{what} '{value}'", help=f"{did_you_mean(str(value), known)}one of {', '.join(known)}")


def _needs_end(args: Sequence[str]) -> bool:
    """Whether ``--`` ends the options and a name that looks like one follows."""
    return "--" in args and any(text.startswith("-") for text in args[args.index("--") + 1 :])


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lvc",
        description="The lightweight vision compiler: makes trained vision models small and fast.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lvc {lvc.__version__}")
    add_folder_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        module = importlib.import_module(f"lvc.compiler.cli.{name.replace('-', '_')}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(command)
        command.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        command.set_defaults(execute=module.execute, ranks=ALONE)
    return parser


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the headers and the CMake package of this installation are."""
    for kind, what in (("include", "headers for C and C++"), ("cmake", "CMake package")):
        help = f"print the folder of the {what}"
        parser.add_argument(f"--{kind}-dir", action=_PrintFolder, nargs=0, const=kind, help=help)


class _PrintFolder(argparse.Action):
    """Prints the folder of its kind that a backend has, and leaves."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        from lvc.compiler.pipeline import catalogue

        folders = [catalogue.BACKENDS.get(name).folders() for name in catalogue.BACKENDS.names()]
        print(next(found[str(self.const)] for found in folders if self.const in found))
        parser.exit()


def main(
    arguments: Sequence[str], make: Callable[[], argparse.ArgumentParser] = make_parser, program: str = "lvc"
) -> int:
    """Run a command line of a program, whose parser sets ``command`` and ``execute``.

    Returns 0 when done, 1 if the model could not be compiled, 2 for wrong usage, 3 if a check failed, 70 for a defect
    of lvc (only then with a traceback).
    """
    console, ranks = Console(json_wanted="--json" in arguments), ALONE
    try:
        if are_started():
            _let_threads_sleep()
            ranks = join()
            console.is_silent = ranks.follows
        options = make().parse_args(arguments)
        if options.command != "bench":
            _let_threads_sleep()
        if not os.environ.get("LVC_WARNINGS"):
            warnings.simplefilter("ignore")
        code = _execute(options, console, ranks)
        sys.stdout.flush()
    except LvcError as error:
        code = _fail(console, error, ranks)
    except MemoryError:
        help = "take a smaller model, batch or image"
        code = _fail(console, CompileError("there is not enough memory", help=help), ranks)
    except Ended:
        code = _fail(console, lost(), ranks)
    except KeyboardInterrupt:
        console.say("interrupted")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception:
        code = 70
        if ranks.claims_error():
            console.is_silent = False
            _tell_defect(console, shlex.join([program, *arguments]))
    return ranks.end(code)


def _tell_defect(console: Console, command: str) -> None:
    import traceback

    from lvc.compiler.tuning.postgres import without_passwords

    console.say(traceback.format_exc())
    console.say("error: this is a defect of lvc; please report it with the lines above")
    console.say(f"  again {without_passwords(command)}")


def _let_threads_sleep() -> None:
    """Let PyTorch's threads sleep soon when they wait for one another, unless the user said how they shall wait.

    By default they spin for milliseconds, and where other programs hold a core each waits for one that is not running:
    a hundred times slower. Threads that sleep at once are up to three times slower on an idle machine; so they spin
    for some microseconds first. It has to be said before PyTorch is imported. Races of engines leave each as it comes.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _execute(options: argparse.Namespace, console: Console, ranks: Ranks) -> int:
    options.ranks = ranks
    if ranks.count > 1 and options.command not in DIVIDED:
        if ranks.follows:
            return 0
        console.say(f"note: 'lvc {options.command}' is not divided: one of {ranks.count} processes does all of it")
    if ranks.count > 1 and options.command in DIVIDED and getattr(options, "threads", 0) is None:
        options.threads = ranks.threads
    code: int = options.execute(options, console)
    return code


def _fail(console: Console, error: LvcError, ranks: Ranks) -> int:
    if ranks.claims_error():
        console.is_silent = False
        console.error(error)
    return error.exit_code
