"""The arguments of the command line's verbs: parsers, and what is said of a mistake in one."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from kogata.core.errors import RecipeError


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are KogataErrors with a remedy."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = get_close_matches(choice[1], re.findall(r"'([^']*)'", choice[2]), n=1) if choice else []
        if near:
            raise RecipeError(message, remedy=f"did you mean {near[0]!r}?")
        raise RecipeError(message, remedy=f"`{self.prog} --help` shows the options")


def parser_of(verb: str, about: str | None) -> Parser:
    """Builds the parser of one verb; `about` is what it does."""
    parser = Parser(prog=f"kogata {verb}", description=about, allow_abbrev=False)
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
            help="processes of the stages that can use several; of each node",
        )
        add("--nodes", type=int, default=1, metavar="N", help="computers that run this together")
        add("--node-rank", type=int, metavar="R", help="this computer's number; 0 writes the result")
        add("--rendezvous", metavar="HOST:PORT", help="where all of them reach node 0")
    if verb == "run":
        add("--fresh", action="append", default=[], metavar="STAGE", help="make this stage anew")
    if verb in ("run", "compare"):
        add("--quiet", action="store_true", help="no progress on stderr")
    if verb == "report":
        add("run", metavar="RUN", help="the folder of a run or a comparison")
        add("--open", action="store_true", help="open it in the browser")
    if verb == "check":
        add("data", nargs="+", metavar="DATA", help="files, folders or patterns; or a recipe")
        add("--model", metavar="MODEL", help="adds lengths, unknown tokens, what is trained")
        add(
            "--columns",
            action="append",
            default=[],
            metavar="ROLE=HEADER",
            help="prompt=質問 completion=回答",
        )
        add("--group", metavar="HEADER", help="the column whose rows share a split")
        add("--system", metavar="TEXT", help="the system message of rows that bring none")
        add("--encoding", metavar="NAME", help="cp932 …; by default it is found")
        add("--heldout", metavar="SHARE", help="a share such as 0.1, or other files: are rows in both?")
        add("--context", type=int, metavar="N", help="tokens of the longest row (default: the model's)")
        add("--allow-plugins", action="store_true", help="run the plug-in files that the recipe names")
    if verb == "stages":
        add("name", nargs="?", metavar="NAME", help="one technique")
        add("--plugin", action="append", default=[], metavar="FILE", help="load this plug-in file first")
    if verb == "generate":
        add("model", metavar="MODEL", help="a run's folder, a model's folder, a .gguf file or a hub name")
        add("prompt", nargs="?", metavar="TEXT", help="what it goes on from (default: standard input)")
        add("--tokens", type=int, default=100, metavar="N", help="at most so many tokens (default: 100)")
        add("--temperature", type=float, default=0.8, metavar="T", help="0 is greedy (default: 0.8)")
        add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same (default: 0)")
    if verb == "chat":
        add("model", metavar="MODEL", help="a run's folder, a model's or adapter's, a .gguf file, a hub name")
        add("question", nargs="?", metavar="TEXT", help="ask this alone (default: talk in the terminal)")
        add("--system", metavar="TEXT", help="the system message")
        add("--tokens", type=int, default=512, metavar="N", help="of an answer at most (default: 512)")
        add("--temperature", type=float, default=0.7, metavar="T", help="0 is greedy (default: 0.7)")
        add("--seed", type=int, default=0, metavar="N", help="the same seed answers the same (default: 0)")
    if verb == "store":
        add("action", nargs="?", choices=["list", "rm", "free"], default="list")
        add("names", nargs="*", metavar="OBJECT", help="of rm: what to remove, as listed")
        add("--bytes", metavar="AMOUNT", help="of free: remove the oldest until so much is free, 2GiB")
    if verb != "schema":
        add("--json", action="store_true", help="print JSON and nothing else on standard output")
    return parser


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


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    """Reads `prompt=質問` and `prompt=質問,completion=回答` as role → header."""
    found: dict[str, str] = {}
    for text in texts:
        for part in re.split(r",(?=\s*\w+\s*=)", text):
            role, sign, header = part.partition("=")
            if not sign or not role.strip() or not header.strip():
                raise RecipeError("a column without its header", found=part, expected="--columns ROLE=HEADER")
            found[role.strip()] = header.strip()
    return found


def share_of(text: str | None) -> Any:
    """Reads a share such as 0.1; what is no number names files."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def nodes_of(args: argparse.Namespace) -> Any:
    """Reads where this computer stands among several."""
    from kogata.runtime.nodes import Nodes

    return Nodes.of(args.nodes, args.node_rank, args.rendezvous)


def refuse_torchrun(args: argparse.Namespace) -> None:
    """Refuses to be one of several copies that torchrun started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world = os.environ.get("WORLD_SIZE", "2")
        raise RecipeError(
            "kogata run starts its own processes and cannot be started by torchrun",
            found=f"{world} copies under torchrun, this is rank {os.environ.get('RANK', '?')}",
            remedy=f"kogata run {args.recipe} --processes {world}",
        )


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
