"""The command line: one command a stage, and the commands for people.

Everything heavy is imported inside the handlers, so that ``--help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from adpet.errors import AdpetError
from adpet.malloc import keep_freed_memory

STAGES = {
    "simulate": "simulate the built-in cohort",
    "ingest": "list the scans of the collection",
    "normalize": "register and normalise every scan",
    "slice": "cut the coronal planes",
    "split": "deal subjects out to test set and folds",
    "tune": "search the hyperparameters that are `tuned`",
    "train": "train MobileNetV2 with the best trial's values",
    "evaluate": "score the held-out test subjects",
    "export": "write the model as ONNX with all that it takes to ask it",
    "explain": "draw class activation maps",
    "leakage": "measure how much a slice split would leak",
    "cross_validate": "train and test a network per fold of all subjects, where asked for",
    "report": "write the report and the model card from the results",
    "register": "register the model as `challenger`",
}

# Stages that begin nothing where MLflow does not answer, unless `tracking.offline` is true.
NEED_MLFLOW = ("tune", "train", "register")

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a problem the user can mend is one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    # TensorFlow's banner and CPU hints tell a user nothing about their scans.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_freed_memory()
    try:
        if options.command in STAGES:
            from adpet.dvc_keeper import leave_keeper

            leave_keeper()
        options.handler(options)
        # Here, and not when Python ends, so that a reader who has gone is noticed below.
        sys.stdout.flush()
    except AdpetError as error:
        sys.exit(f"adpet {options.command}: {error}")
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: nothing is left to say, or to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"adpet {options.command}: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"adpet {options.command}: {place}{error.strerror}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adpet",
        description="Alzheimer's disease from FDG-PET. `dvc repro` runs the stages that have changed; "
        "the other commands are for people. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"adpet {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stages = {name: _add(commands, name, f"stage: {summary}", _run_stage) for name, summary in STAGES.items()}
    check = stages["simulate"].add_argument_group("checking")
    check.add_argument(
        "--check",
        action="store_true",
        help="simulate 400 subjects more, hold them against published figures, and write nothing",
    )
    check.add_argument(
        "--real",
        type=Path,
        default=None,
        help="with --check: a mean FDG-PET image of patients and controls, in MNI space, to be compared with",
    )
    stages["simulate"].set_defaults(handler=_simulation)

    _add(commands, "summary", "say how good the model is, and what to do next", _summary)
    _add_predict(commands)
    _add_decisions(commands)
    preset = _add(commands, "preset", "write a preset into params.yaml", _preset)
    preset.add_argument("name", nargs="?", default=None, help="the preset (default: list them)")
    sync = _add(commands, "sync", "send MLflow what waits for it, where it was away", _sync)
    sync.add_argument(
        "--all", action="store_true", help="also what was meant for another store than the present one"
    )
    ui = _add(commands, "ui", "open the MLflow UI on loopback", _ui)
    ui.add_argument("--port", type=int, default=5000)
    return parser


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command that asks a model about scans."""
    predict = _add(commands, "predict", "give the probability of AD for scans", _predict)
    predict.add_argument(
        "scans", nargs="+", type=Path, metavar="SCAN", help="NIfTI files, folders of them, or BIDS-PET trees"
    )
    predict.add_argument(
        "--model",
        default=None,
        help="an exported model's folder, models:/NAME/VERSION or models:/NAME@ALIAS (default: the champion)",
    )
    predict.add_argument(
        "--output",
        type=Path,
        default=None,
        help="folder for maps, pages and values, apart from the scans (default: one a scan, in the present "
        "folder, named after it)",
    )
    predict.add_argument("--json", type=Path, default=None, help="file for all answers; - is stdout")
    predict.add_argument("--csv", type=Path, default=None, help="file for a row a scan; - is stdout")
    predict.add_argument(
        "--align",
        choices=["affine", "none"],
        default=None,
        help="`none` for scans that are in MNI space already (default: as in training)",
    )
    predict.add_argument(
        "--frames", action="store_true", help="a folder is one scan, and its files are the scan's frames"
    )


def _add_decisions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that decide which version is the champion, and the one that tells who decided."""
    promote = _add(commands, "promote", "make a version the champion, if it meets every condition", _promote)
    promote.add_argument(
        "version", nargs="?", default="challenger", help="a version number or alias (default: challenger)"
    )
    promote.add_argument(
        "--force", action="store_true", help="promote it whatever the conditions say; needs --reason"
    )
    promote.add_argument("--reason", default=None, help="why; it is written down in the registry")
    promote.add_argument("--dry-run", action="store_true", help="show the conditions, and change nothing")
    rollback = _add(commands, "rollback", "return to the champion before the present one", _rollback)
    rollback.add_argument("--reason", default="", help="why; it is written down in the registry")
    lineage = _add(commands, "lineage", "tell what a version was made from, and whether it is here", _lineage)
    reproduce = _add(commands, "reproduce", "make a version again, and compare the weights", _reproduce)
    for command in (lineage, reproduce):
        command.add_argument(
            "version",
            nargs="?",
            default="champion",
            help="a version number, an alias or models:/NAME@ALIAS (default: champion)",
        )
    _add(commands, "history", "tell who was champion when, why, and by whose decision", _history)


def _version() -> str:
    """Return the installed version; stages run from ``src`` alone as well."""
    try:
        return version("adpet")
    except PackageNotFoundError:
        return "(not installed)"


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    handler: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.set_defaults(handler=handler)
    return command


def _run_stage(options: argparse.Namespace) -> None:
    from adpet.parallel import workers_ended
    from adpet.params import load_params
    from adpet.temporary import temporary_files

    params = load_params()
    with temporary_files(), workers_ended():
        if options.command in NEED_MLFLOW and (options.command != "tune" or params.tuned()):
            # The stage connects as well, but its module loads TensorFlow first, which takes seconds.
            from adpet.tracking.store import connect

            connect(Path.cwd(), **params.tracking.connection)
        import_module(f"adpet.stages.{options.command}").run(params)


def _simulation(options: argparse.Namespace) -> None:
    if not options.check:
        _run_stage(options)
        return
    from adpet.commands.check_simulation import run

    table, missed = run(real=options.real)
    print(table)
    if missed:
        raise AdpetError(
            f"{missed} of the targets above are missed; mend the simulated cohort's settings or its model"
        )


def _summary(_: argparse.Namespace) -> None:
    from adpet.commands.summary import run

    print(run())


def _predict(options: argparse.Namespace) -> None:
    from adpet.commands.predict import Options, run

    asked = {name: getattr(options, name) for name in ("model", "output", "align", "json", "csv", "frames")}
    said = run(options.scans, Options(**asked))
    if said:
        print(said)


def _promote(options: argparse.Namespace) -> None:
    reason = (options.reason or "").strip()
    if options.force != bool(reason) or (options.reason is not None and not reason):
        raise AdpetError(
            'required --force and --reason together; received one of them; say why in --reason "..."'
        )
    from adpet.commands.promote import run

    table, refusal = run(options.version, forced=reason or None, dry_run=options.dry_run)
    print(table)
    if refusal is not None:
        raise AdpetError(refusal)


def _rollback(options: argparse.Namespace) -> None:
    from adpet.commands.rollback import run

    print(run(reason=options.reason))


def _history(_: argparse.Namespace) -> None:
    from adpet.commands.history import run

    print(run())


def _lineage(options: argparse.Namespace) -> None:
    from adpet.commands.lineage import run

    print(run(options.version))


def _reproduce(options: argparse.Namespace) -> None:
    from adpet.commands.reproduce import run

    said, same = run(options.version)
    print(said)
    if not same:
        raise AdpetError("required the same weights as those registered; received others, as said above")


def _preset(options: argparse.Namespace) -> None:
    from adpet.commands.preset import run

    print(run(options.name))


def _sync(options: argparse.Namespace) -> None:
    from adpet.commands.sync import run

    print(run(everything=options.all))


def _ui(options: argparse.Namespace) -> None:
    from adpet.commands.ui import run

    run(port=options.port)
