import shlex

import pytest

from clinode.cli.app import COMMANDS
from clinode.cli.masking import masked_command
from clinode.errors import MASK, masked_text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["evaluate", "runs/death", "--subject", "12345"], "evaluate death --subject ***"),
        (["evaluate", "runs/death", "--subject=ann-b"], "evaluate death --subject=***"),
        (["decide", "s.csv", "--only", "who=Ann B"], "decide s.csv --only who=***"),
        (["check", "/home/Ann Berg/2031-04-01/stays/"], "check stays"),
        (["check", r"C:\Ann Berg\labs.csv"], "check labs.csv"),
        (["check", "--statics=/home/ann/statics.csv", "x"], "check --statics=statics.csv x"),
        (["check", "MRN-8675309.csv"], "check ***.csv"),
        (["check", "labs 2031-04-01.csv"], "check 'labs ***.csv'"),
        (["check", "ann@ward.example"], "check ***"),
        (["check", "1978"], "check ***"),
        (["--json", "check", "stays"], "--json check stays"),
    ],
)
def test_a_stored_call_does_not_say_of_whom(given, shown):
    assert masked_command(given) == f"clinode {shown}"


@pytest.mark.parametrize(
    "words",
    [
        "fit stays --outcome died --set fit.epochs=20000 --set=model.latent=4 --seed 20260101",
        "fit stays --horizon 12.5 --at -3 --fractions 0.7,0.15,0.15 --salt 2026",
        "simulate morris-lecar --until 500 --input I=100@100:300",
        "bifurcate morris-lecar I --span -20:120",
        "control generated --to E:lh_precuneus=rest+0.05",
        "convert stays meds --shard 1/8",
        "control generated --horizon '0.000125 s' --to x=1e-9",
    ],
)
def test_settings_seeds_and_quantities_stay_readable(words):
    assert masked_command(shlex.split(words)) == f"clinode {words}"


def test_the_examples_of_every_command_stay_what_they_are_but_for_paths():
    for name, (_, example) in COMMANDS.items():
        shown = masked_command(example.split()[1:])
        assert shown.startswith(f"clinode {name}")
        assert len(shown.split()) == len(example.split())
        assert MASK not in shown.replace(f"--subject {MASK}", "")


def test_text_keeps_years_and_counts_and_loses_dates_and_long_numbers():
    plain = "from 2026, 4 of 1,000 rows, 0.123456"
    assert masked_text(plain) == plain
    assert masked_text("seen 01.04.2031 10:15, 555-12-3456") == "seen ***, ***"
