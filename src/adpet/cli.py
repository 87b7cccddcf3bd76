"""Command line: one command a stage, and commands for people.

A stage or command is imported only when it is called, so that ``--help`` answers at once. A module of
`adpet.commands` has ``main``, which takes what its ``add_arguments`` adds and returns the text to print.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from adpet.errors import AdpetError
from adpet.malloc import keep_freed_memory

STAGES = {
    "simulate": "simulate the built-in cohort",
    "ingest": "list the scans of the collection",
    "normalize": "register every scan and compute SUVR in template space",
    "slice": "cut the coronal planes",
    "split": "assign subjects to test set and folds",
    "tune": "search the hyperparameters that are `tuned`",
    "train": "train MobileNetV2 with the best trial's values",
    "evaluate": "score the held-out test subjects",
    "export": "write the model as ONNX with all that inference needs",
    "external": "validate the exported model on another collection, where there is one",
    "score": "score people with other diagnoses, where asked for",
    "explain": "draw class activation maps",
    "leakage": "measure how much a slice split would leak",
    "cross_validate": "train and test a network per fold of all subjects, where asked for",
    "report": "write the report and the model card from the results",
    "register": "register the model as `challenger`",
}

COMMANDS = {
    "doctor": "say what a collection holds, allows and costs, before the first run",
    "summary": "say how good the model is, and what to do next",
    "predict": "give the probability of AD for scans",
    "validate": "score a model on another labelled collection",
    "promote": "make a version the champion, if it meets every condition",
    "rollback": "return to the previous champion",
    "lineage": "show what a version was made from, and whether it is here",
    "reproduce": "train a version again, and compare the weights",
    "history": "show who was champion when, why, and by whose decision",
    "preset": "write a preset into params.yaml",
    "sync": "send the server every run that it lacks",
    "ui": "open the MLflow UI on loopback",
}

# Stages by their names before this release, which are accepted until the next one.
OLD_STAGES = {"phantom": "simulate", "standardize": "normalize", "audit": "leakage"}

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; print a user's error as one line."""
    called = list(sys.argv[1:] if arguments is None else arguments)
    if called and called[0] in OLD_STAGES:
        old, called[0] = called[0], OLD_STAGES[called[0]]
        message = f"adpet {old} is now named adpet {called[0]}; use that from the next release on"
        print(message, file=sys.stderr)
    command = called[0] if called else ""
    # TensorFlow's banner and CPU hints tell a user nothing about their scans.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_freed_memory()
    try:
        options = _parser(command).parse_args(called)
        options.main(options)
        # Here, and not when Python ends, so that a closed pipe is noticed below.
        sys.stdout.flush()
    except AdpetError as error:
        sys.exit(f"adpet {command}: {error}")
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: nothing is left to say, or to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"adpet {command}: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"adpet {command}: {place}{error.strerror}")


def _parser(command: str) -> argparse.ArgumentParser:
    """Return the parser; only the called command's arguments are loaded."""
    parser = argparse.ArgumentParser(
        prog="adpet",
        description="Alzheimer's disease from FDG-PET. `dvc repro` runs the stages that have changed; "
        "the other commands are for people. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"adpet {_version()}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in STAGES.items():
        stage = parsers.add_parser(name, help=f"stage: {summary}", description=f"Stage: {summary}.")
        stage.set_defaults(main=_run_stage)
        if name == command == "simulate":
            import_module("adpet.commands.check_simulation").add_arguments(stage)
    for name, summary in COMMANDS.items():
        added = parsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == command:
            module = import_module(f"adpet.commands.{name}")
            if hasattr(module, "add_arguments"):
                module.add_arguments(added)
            added.set_defaults(main=partial(_run_command, module.main))
    return parser


def _version() -> str:
    """Return the installed version; stages also run from ``src`` alone."""
    try:
        return version("adpet")
    except PackageNotFoundError:
        return "(not installed)"


def _run_command(main: Callable[..., str], options: argparse.Namespace) -> None:
    text = main(**{name: value for name, value in vars(options).items() if name not in ("command", "main")})
    if text:
        print(text)


def _run_stage(options: argparse.Namespace) -> None:
    from adpet.cluster import clusters
    from adpet.params import load_params
    from adpet.storage import temporary_files

    if getattr(options, "check", False):
        import_module("adpet.commands.check_simulation").main(options)
        return
    params = load_params()
    with temporary_files(), clusters:
        import_module(f"adpet.stages.{options.command}").run(params)
