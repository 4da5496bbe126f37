"""The command line: verbs over `kogata.api`. stdout is the result, stderr the progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from kogata.arguments import (
    nodes_of,
    pairs_of,
    parser_of,
    refuse_torchrun,
    share_of,
    unknown_argument,
    variants_of,
)
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
  report RUN             write the report of a run or a comparison again, from its files alone
  compare RECIPE         was it worth it? with and without, paired seeds, an interval
  check DATA             what is wrong with rows to learn from: a table, or a recipe that reads one
  generate MODEL [TEXT]  let a model write on
  chat MODEL [TEXT]      talk with a model in the terminal
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

    made = api.plan(recipe_of(args), out=folder_of(args), processes=args.processes, nodes=nodes_of(args))
    emit(args.json, tables.plan_dict(made), tables.plan_view(made))
    return 3 if made.refusals else 0


def run(args: argparse.Namespace) -> None:
    """Runs a recipe."""
    from kogata import api
    from kogata.report import tables
    from kogata.report.screen import make_screen

    refuse_torchrun(args)
    recipe, nodes = recipe_of(args), nodes_of(args)
    screen = make_screen(quiet=args.quiet)
    try:
        if nodes.rank:
            api.lend(recipe, nodes=nodes, processes=args.processes, screen=screen)
            emit(args.json, {"node": nodes.rank, "status": "done"}, "done; the result lies on node 0")
            return
        done = api.run(
            recipe, out=folder_of(args), fresh=args.fresh, processes=args.processes, nodes=nodes,
            screen=screen, started=STARTED,
        )  # fmt: skip
    finally:
        screen.close()
    emit(args.json, tables.run_dict(done), tables.run_view(done))


def report(args: argparse.Namespace) -> None:
    """Writes the report of a run, or of a comparison, again."""
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
    told = tables.comparison_dict(found)
    emit(args.json, told, tables.comparison_view(told))


def check(args: argparse.Namespace) -> int:
    """Says what is wrong with rows to learn from, row by row; exit code 2 where there is a problem."""
    from kogata import api
    from kogata.report import checks

    found = api.check(
        args.data, model=args.model, columns=pairs_of(args.columns), group=args.group, system=args.system,
        encoding=args.encoding, heldout=share_of(args.heldout), context=args.context,
        allow_plugins=args.allow_plugins,
    )  # fmt: skip
    emit(args.json, found.to_dict(), checks.view(found))
    return 2 if found.problems else 0


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


def chat(args: argparse.Namespace) -> None:
    """Talks with a model in its chat format: a question, or a conversation in the terminal."""
    from kogata import api
    from kogata.report import talking

    conversation = api.chat(
        args.model, system=args.system, tokens=args.tokens, temperature=args.temperature, seed=args.seed
    )
    if args.json:
        for asked in [args.question] if args.question else filter(None, map(str.strip, sys.stdin)):
            for _ in conversation.say(asked):
                pass
        emit(args.json, {"messages": conversation.messages}, "")
    elif args.question:
        talking.answer(conversation, args.question, stay=False)
    else:
        talking.talk(conversation, args.model)


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


def folder_of(args: argparse.Namespace) -> Path | None:
    """Gives the folder that `--out` names, if any."""
    return Path(args.out) if args.out else None


VERBS = {
    verb.__name__: verb
    for verb in (new, plan, run, report, compare, check, generate, chat, stages, store, schema, doctor)
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
    parser = parser_of(verb, VERBS[verb].__doc__)
    args, unknown = parser.parse_known_intermixed_args(rest)
    for word in unknown:
        raise unknown_argument(verb, parser, word)
    args.verb = verb
    if getattr(args, "processes", 1) < 1 or getattr(args, "seeds", 1) < 1:
        raise RecipeError(
            "a number of processes or seeds must be at least 1", found=f"kogata {' '.join(argv)}"
        )
    return args


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
        known = _of_this_computer(error)
        if known is None:
            show_bug(error, as_json)
            return 1
        show_error(known, as_json)
        return known.exit_code


def _of_this_computer(error: Exception) -> KogataError | None:
    """Says what a failed read or write means: a full disk or a missing permission is no bug of ours."""
    if not isinstance(error, OSError):
        return None
    from kogata.runtime.system import explain_os_error

    return explain_os_error(error)


if __name__ == "__main__":
    sys.exit(main())
