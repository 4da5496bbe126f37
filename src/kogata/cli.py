"""The command line: verbs over `kogata.api`. stdout is the result, stderr the progress."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kogata.core.errors import KogataError, RecipeError, Stopped
from kogata.report.console import emit, show_bug, show_error

if TYPE_CHECKING:
    from kogata.core.recipe import Recipe

STARTED = time.monotonic()
"""A time budget runs from here: as near to the start of the process as we can be."""

HELP = """\
Kogata trains the best language model your budget allows, with a receipt for every step.

usage: kogata VERB ...

  new [EXAMPLE]          write a commented recipe that runs (quickstart, japanese, shakespeare)
  plan RECIPE            what it will cost, stage by stage, and why each choice
  run RECIPE             do it: a model, its receipts and a report
  report RUN             write the report of a run again, from its ledger alone
  compare RECIPE         was it worth it? with and without, paired seeds, an interval
  generate MODEL [TEXT]  let a model write on
  stages [NAME]          the techniques; one technique's card and every setting
  store [list|rm|free]   what is kept for reuse, and how to free it
  schema                 the JSON Schema of a recipe, for editors
  doctor                 what this computer has and what is missing

  kogata VERB --help     the options of a verb
  --version              the release

exit codes: 0 done · 1 our bug · 2 your input · 3 refused (budget) · 130/143 stopped, can be resumed
"""


# The verbs


def new(args: argparse.Namespace) -> None:
    """Writes a commented recipe that runs."""
    from kogata.starter import new as write_recipe

    path = write_recipe(args.example, data=args.data, model=args.model, out=args.out)
    note = f"wrote {path}\n  kogata plan {path}    what it will cost\n  kogata run {path}     do it"
    emit(args.json, {"path": str(path)}, note)


def plan(args: argparse.Namespace) -> int:
    """States what a recipe will cost, stage by stage; exit code 3 when it is refused."""
    from kogata import api
    from kogata.report import tables

    made = api.plan(recipe_of(args), out=folder_of(args), processes=args.processes)
    emit(args.json, tables.plan_dict(made), tables.plan_view(made))
    return 3 if made.refusals else 0


def run(args: argparse.Namespace) -> None:
    """Runs a recipe."""
    from kogata import api
    from kogata.report import tables
    from kogata.report.screen import make_screen

    refuse_torchrun(args)
    recipe = recipe_of(args)
    screen = make_screen(quiet=args.quiet)
    try:
        done = api.run(
            recipe, out=folder_of(args), fresh=args.fresh, processes=args.processes, screen=screen,
            started=STARTED,
        )  # fmt: skip
    finally:
        screen.close()
    emit(args.json, tables.run_dict(done), tables.run_view(done))


def report(args: argparse.Namespace) -> None:
    """Writes a run's report again."""
    from kogata import api

    path = api.report(Path(args.run))
    if args.open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    emit(args.json, {"path": str(path)}, str(path))


def compare(args: argparse.Namespace) -> None:
    """Compares variants of a recipe over paired seeds."""
    from kogata import api
    from kogata.report import tables
    from kogata.report.screen import make_screen

    screen = make_screen(quiet=args.quiet)
    recipe = recipe_of(args, settings=[])
    try:
        found = api.compare(
            recipe, without=args.without, settings=variants_of(args.set), seeds=args.seeds, match=args.match,
            out=folder_of(args), screen=screen,
        )  # fmt: skip
    finally:
        screen.close()
    emit(args.json, found.to_dict(), tables.comparison_view(found.to_dict()))


def stages(args: argparse.Namespace) -> None:
    """Lists the techniques, or shows one's card."""
    from kogata.report import cards, tables

    for plugin in args.plugin:
        cards.registry.load_plugin(Path(plugin))
    if args.name:
        card = cards.card_of(args.name)
        emit(args.json, card.to_dict(), tables.card_view(card))
    else:
        every = cards.all_cards()
        emit(args.json, [card.to_dict() for card in every], tables.stages_view(every))


def generate(args: argparse.Namespace) -> None:
    """Lets a model write on, word by word."""
    from kogata import api

    prompt = args.prompt
    if prompt is None:
        prompt = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    pieces = api.generate(
        args.model, prompt, tokens=args.tokens, temperature=args.temperature, seed=args.seed
    )
    if args.json:
        emit(args.json, {"prompt": prompt, "text": "".join(pieces)}, "")
        return
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def store(args: argparse.Namespace) -> None:
    """Lists or frees what is kept for reuse."""
    from kogata import api
    from kogata.core.amounts import format_bytes, parse_bytes

    if args.action == "list":
        from kogata.report import tables

        rows = api.store_list()
        emit(args.json, rows, tables.store_view(rows))
    elif args.action == "rm":
        if not args.names:
            raise RecipeError("nothing named", remedy="kogata store rm OBJECT…; `kogata store` lists them")
        freed = sum(api.store_remove(name) for name in args.names)
        emit(args.json, {"freed_bytes": freed}, f"freed {format_bytes(freed)}")
    else:
        try:
            wanted = parse_bytes(args.bytes) if args.bytes else None
        except ValueError as error:
            raise RecipeError(str(error), where="--bytes") from None
        freed = api.store_free(wanted)
        emit(args.json, {"freed_bytes": freed}, f"freed {format_bytes(freed)}")


def schema(args: argparse.Namespace) -> None:
    """Prints the JSON Schema of a recipe."""
    from kogata import api

    emit(True, api.schema(), "")


def doctor(args: argparse.Namespace) -> int:
    """Says what this computer has and what is missing."""
    from kogata.report import doctor as examination

    checks = examination.examine()
    emit(args.json, [check.to_dict() for check in checks], examination.view(checks))
    return 2 if any(check.state == "bad" for check in checks) else 0


# Arguments


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are KogataErrors with a remedy."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = get_close_matches(choice[1], re.findall(r"'([^']*)'", choice[2]), n=1) if choice else []
        if near:
            raise RecipeError(message, remedy=f"did you mean {near[0]!r}?")
        raise RecipeError(message, remedy=f"`{self.prog} --help` shows the options")


def parser_of(verb: str) -> Parser:
    """Builds the parser of one verb."""
    parser = Parser(prog=f"kogata {verb}", description=VERBS[verb].__doc__, allow_abbrev=False)
    add = parser.add_argument
    if verb == "new":
        add("example", nargs="?", default="quickstart", metavar="EXAMPLE", help="which example to start from")
        add("--data", metavar="PATH", help="your text: a file, a folder or a pattern")
        add("--model", metavar="MODEL", help="start from this model: a hub name, a folder or a .gguf file")
        add("--out", metavar="FILE", help="where to write it (default: EXAMPLE.yaml)")
    if verb in ("plan", "run", "compare"):
        add("recipe", metavar="RECIPE", help="a recipe file")
        set_help = "a setting, for example train.pretrain.lr=0.02"
        if verb == "compare":
            set_help = "a setting and the values to try beside the recipe's own: a.b=1,2"
            add("--without", action="append", default=[], metavar="STAGE", help="leave this stage out")
            add("--seeds", type=int, default=3, metavar="N", help="paired seeds (default: 3)")
            add("--match", choices=["time", "tokens", "steps"], default="time", help="what is equal")
        add("--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help=set_help)
        add("--budget", action="append", default=[], metavar="PART=AMOUNT", help="time=5min, memory=4GiB …")
        add("--seed", type=int, metavar="N", help="another seed")
        add("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
        add("--allow-plugins", action="store_true", help="run the plug-in files that the recipe names")
    if verb in ("plan", "run"):
        add(
            "--processes",
            type=int,
            default=1,
            metavar="N",
            help="processes of the stages that can use several",
        )
    if verb == "run":
        add("--fresh", action="append", default=[], metavar="STAGE", help="make this stage anew")
    if verb in ("run", "compare"):
        add("--quiet", action="store_true", help="no progress on stderr")
    if verb == "report":
        add("run", metavar="RUN", help="a run's folder")
        add("--open", action="store_true", help="open it in the browser")
    if verb == "stages":
        add("name", nargs="?", metavar="NAME", help="one technique")
        add("--plugin", action="append", default=[], metavar="FILE", help="load this plug-in file first")
    if verb == "generate":
        add("model", metavar="MODEL", help="a run's folder, a model's folder, a .gguf file or a hub name")
        add("prompt", nargs="?", metavar="TEXT", help="what it goes on from (default: standard input)")
        add("--tokens", type=int, default=100, metavar="N", help="at most so many tokens (default: 100)")
        add("--temperature", type=float, default=0.8, metavar="T", help="0 is greedy (default: 0.8)")
        add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same (default: 0)")
    if verb == "store":
        add("action", nargs="?", choices=["list", "rm", "free"], default="list")
        add("names", nargs="*", metavar="OBJECT", help="of rm: what to remove, as listed")
        add("--bytes", metavar="AMOUNT", help="of free: remove the oldest until so much is free, 2GiB")
    if verb != "schema":
        add("--json", action="store_true", help="print JSON and nothing else on standard output")
    return parser


def recipe_of(args: argparse.Namespace, settings: list[str] | None = None) -> Recipe:
    """Loads the recipe that the arguments name, with their settings, budget and seed."""
    from kogata import api

    return api.Recipe.load(
        args.recipe,
        args.set if settings is None else settings,
        budget=args.budget,
        seed=args.seed,
        allow_plugins=args.allow_plugins,
    )


def variants_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Reads `a.b=1,2` as a setting and the values to try; commas inside brackets or quotes do not part."""
    from kogata.runtime.yaml_text import read_value

    found: dict[str, list[Any]] = {}
    for text in texts:
        address, sign, values = text.partition("=")
        if not sign or not address.strip() or not values.strip():
            raise RecipeError(
                "a setting to compare has no values", found=text, expected="STAGE.NAME=VALUE,VALUE"
            )
        parts = re.findall(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,])+""", values)
        values_read = [read_value(part.strip(), f"--set {text}") for part in parts]
        found.setdefault(address.strip(), []).extend(values_read)
    return found


def folder_of(args: argparse.Namespace) -> Path | None:
    """Gives the folder that `--out` names, if any."""
    return Path(args.out) if args.out else None


def refuse_torchrun(args: argparse.Namespace) -> None:
    """Refuses to be one of several copies that torchrun started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world = os.environ.get("WORLD_SIZE", "2")
        raise RecipeError(
            "kogata run starts its own processes and cannot be started by torchrun",
            found=f"{world} copies under torchrun, this is rank {os.environ.get('RANK', '?')}",
            remedy=f"kogata run {args.recipe} --processes {world}",
        )


VERBS = {
    verb.__name__: verb for verb in (new, plan, run, report, compare, generate, stages, store, schema, doctor)
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads a command line.

    Raises:
        RecipeError: an unknown verb or option, with the nearest one there is.
    """
    verb, *rest = argv
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        if Path(verb).suffix in (".yaml", ".yml"):
            remedy = f"kogata run {verb}"
        else:
            remedy = f"did you mean `kogata {near[0]}`?" if near else "`kogata --help` lists them"
        raise RecipeError(f"unknown verb {verb!r}", expected=", ".join(VERBS), remedy=remedy)
    parser = parser_of(verb)
    args, unknown = parser.parse_known_intermixed_args(rest)
    for word in unknown:
        raise unknown_argument(verb, parser, word)
    args.verb = verb
    if getattr(args, "processes", 1) < 1 or getattr(args, "seeds", 1) < 1:
        raise RecipeError("a number of processes or seeds must be at least 1")
    return args


def unknown_argument(verb: str, parser: Parser, word: str) -> RecipeError:
    """Explains an argument that a verb does not take."""
    options = [option for action in parser._actions for option in action.option_strings]
    name = word.split("=", 1)[0]
    if not name.startswith("-"):
        return RecipeError(f"kogata {verb} does not take {word!r}", remedy=f"`kogata {verb} --help`")
    near = get_close_matches(name, [option for option in options if len(option) > 3], n=1, cutoff=0.7)
    if near:
        remedy = f"did you mean {near[0]}?"
    elif "--set" in options:
        setting = name.lstrip("-").replace("-", "_")
        remedy = (
            f"a setting of a stage is given as --set STAGE.{setting}=VALUE; `kogata stages` lists the stages"
        )
    else:
        remedy = f"`kogata {verb} --help` shows the options"
    return RecipeError(f"unknown option {name!r} of kogata {verb}", remedy=remedy)


# Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        from kogata import __version__

        print(f"kogata {__version__}")
        return 0
    as_json = "--json" in argv
    try:
        args = parse(argv)
        return VERBS[args.verb](args) or 0
    except KogataError as error:
        show_error(error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        show_error(Stopped("stopped by Ctrl-C"), as_json)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; that is no error, and the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        show_bug(error, as_json)
        return 1


if __name__ == "__main__":
    sys.exit(main())
