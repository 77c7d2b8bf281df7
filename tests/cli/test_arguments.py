import pytest
import typer

from clinode.cli.app import COMMANDS, app
from clinode.cli.arguments import in_order
from clinode.errors import ArgumentError

EXAMPLES = {name: example for name, (_, example) in COMMANDS.items()}


@pytest.fixture(scope="module")
def command():
    return typer.main.get_command(app)


@pytest.mark.parametrize(
    "given",
    [
        ["evaluate", "run", "stays", "--part", "all", "--json"],
        ["--json", "evaluate", "--part", "all", "run", "stays"],
        ["--part", "all", "--json", "evaluate", "run", "stays"],
        ["--part=all", "evaluate", "run", "--json", "stays"],
    ],
)
def test_options_mean_the_same_in_any_place(command, given):
    ordered = in_order(command, given, EXAMPLES)
    assert ordered[0] == "evaluate"
    context = command.commands["evaluate"].make_context("evaluate", ordered[1:])
    assert str(context.params["run"]) == "run"
    assert str(context.params["data"]) == "stays"
    assert context.params["part"] == "all"
    assert context.params["json"] is True


def test_a_value_that_looks_like_a_command_is_a_value(command):
    ordered = in_order(command, ["--out", "report", "fit", "stays"], EXAMPLES)
    assert ordered == ["fit", "--out", "report", "stays"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["fit", "stays", "--outcom", "death"], "has no option --outcom. Fix: did you mean --outc"),
        (["fit", "stays", "--outcom=death"], "Try: clinode fit stays/ --outcome in_hospital"),
        (["--jsn", "check", "stays"], "clinode check has no option --jsn. Fix: did you mean --js"),
        (["check", "stays", "--zzzzzzzz"], "has no option --zzzzzzzz. Fix: Try: clinode check"),
        (["check", "stays", "--tolerance", "0.1"], "clinode check has no option --tolerance"),
        (["evalute", "run"], "no command 'evalute'. Fix: did you mean 'evaluate'"),
        (["qqqqqq"], "no command 'qqqqqq'. Fix: Try: clinode --help"),
        (["--jsno"], "clinode has no option --jsno. Fix: did you mean --json"),
        (["--json"], "option --json needs a command"),
    ],
)
def test_an_unknown_word_gets_the_nearest_real_one_and_a_working_example(command, given, words):
    with pytest.raises(ArgumentError, match=words):
        in_order(command, given, EXAMPLES)


def test_nothing_asks_for_help(command):
    assert in_order(command, [], EXAMPLES) == ["--help"]
    assert in_order(command, ["--version"], EXAMPLES) == ["--version"]


def test_an_option_takes_a_value_in_every_command_or_in_none(command):
    """Else the words before a command's name could be read in two ways."""
    takes_value: dict[str, set[bool]] = {}
    for one in command.commands.values():
        for parameter in one.params:
            if parameter.param_type_name == "option":
                for name in (*parameter.opts, *parameter.secondary_opts):
                    takes_value.setdefault(name, set()).add(not parameter.is_flag)
    assert [name for name, kinds in takes_value.items() if len(kinds) > 1] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_example_is_a_call_that_its_command_accepts(command, name):
    words = EXAMPLES[name].split()
    assert words[:2] == ["clinode", name]
    ordered = in_order(command, words[1:], EXAMPLES)
    command.commands[name].make_context(name, ordered[1:])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_answer_in_json_and_every_option_says_what_it_does(command, name):
    options = {option for one in command.commands[name].params for option in one.opts}
    assert {"--json", "--debug"} <= options
    silent = [p.name for p in command.commands[name].params if not p.help]
    assert silent == []
