"""The command `clinode`: its commands in the order that work goes, and the way in.

A command's module imports nothing heavy at its top, so that `clinode --help` stays quick; each
command imports what it needs when it is called.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from clinode import __version__
from clinode.cli.arguments import in_order
from clinode.cli.bench import bench
from clinode.cli.check import check
from clinode.cli.control import control
from clinode.cli.convert import convert
from clinode.cli.decide import decide
from clinode.cli.demo import demo
from clinode.cli.doctor import doctor
from clinode.cli.explain import explain
from clinode.cli.failures import INTERRUPTED, told_to_a_person
from clinode.cli.fit import evaluate, fit, predict
from clinode.cli.masking import masked_command
from clinode.cli.options import Call, spread_out
from clinode.cli.overview import overview
from clinode.cli.report import report
from clinode.cli.similarity import similarity
from clinode.cli.systems import bifurcate, simulate
from clinode.cli.verify import verify

COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {  # and a call that works
    "demo": (demo, "clinode demo"),
    "check": (check, "clinode check stays/"),
    "convert": (convert, "clinode convert stays/ meds --shard 1/8"),
    "fit": (fit, "clinode fit stays/ --outcome in_hospital_death --out runs/death"),
    "evaluate": (evaluate, "clinode evaluate runs/death stays/"),
    "predict": (predict, "clinode predict runs/death stays/ --out predictions.csv"),
    "explain": (explain, "clinode explain runs/death stays/ --out attributions"),
    "report": (report, "clinode report runs/death stays/ --out report"),
    "simulate": (simulate, "clinode simulate morris-lecar --until 500 --input I=100"),
    "bifurcate": (bifurcate, "clinode bifurcate morris-lecar I --span -20:120 --out diagram"),
    "control": (control, "clinode control generated --to E:lh_precuneus=rest+0.05 --out steering"),
    "decide": (
        decide,
        "clinode decide saccades.csv --time latency_ms --unit ms --condition target",
    ),
    "similarity": (
        similarity,
        "clinode similarity model.csv other.csv --subject one.csv --subject two.csv",
    ),
    "bench": (bench, "clinode bench attribution --sets rare_feature,state --folds 5"),
    "verify": (verify, "clinode verify report --run runs/death --data stays/"),
    "doctor": (doctor, "clinode doctor"),
    "list": (overview, "clinode list"),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with a code of the contract."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    examples = {name: example for name, (_, example) in COMMANDS.items()}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that knows fewer letters spells them
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _as_interruption)
    with told_to_a_person(given, examples):
        command = typer.main.get_command(app)
        words = in_order(command, given, examples)
        # the call, masked, is what a command may store of it
        code = command.main(words, standalone_mode=False, obj=Call(masked_command(words)))
        if code == INTERRUPTED:  # what typer makes of an interruption, which it does not tell
            raise KeyboardInterrupt
        sys.exit(code or 0)


def _as_interruption(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"clinode {__version__}")
        raise typer.Exit
    return wanted


app = typer.Typer(
    name="clinode",
    help="Learn, explain and steer continuous-time models of health and brain.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _clinode(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


for _name, (_command, _example) in COMMANDS.items():
    app.command(_name, epilog=f"Example: {_example}")(spread_out(_command))
