import pandas as pd
import pytest
import torch

from clinode.cli.assignments import initial_state, input_signal, parse_span, with_values
from clinode.cli.systems import known_systems
from clinode.errors import ArgumentError


def test_a_membrane_in_a_shell_rests_where_its_closed_form_says(cli, tmp_path):
    out = tmp_path / "traces.csv"
    words = ["--until", "2 s", "--input", "I=0.05 nA", "--out", out, "--json"]
    ended = cli("simulate", "adaptive-linear", *words)
    assert ended.code == 0
    system = known_systems()["adaptive-linear"]()
    expected = float(system.E_L + 50 / (system.g_L + system.a))
    assert ended.json["final"]["V"] == pytest.approx(expected, abs=1e-3)
    table = pd.read_csv(out)
    assert list(table.columns)[:2] == ["time (ms)", "V (mV)"]
    assert table["time (ms)"].iloc[-1] == 2000.0


def test_a_pulse_makes_a_neuron_fire_only_while_it_lasts(cli, tmp_path):
    out = tmp_path / "traces.csv"
    ended = cli(
        "simulate", "lif", "--until", 500, "--input", "I=400@100:300", "--out", out, "--json"
    )
    assert ended.json["events"]["spike"] > 3
    V = pd.read_csv(out)["V (mV)"]
    assert V.iloc[:200].max() == pytest.approx(-70.0)
    assert V.iloc[-1] == pytest.approx(-70.0, abs=0.1)


def test_pulses_are_laid_over_constant_inputs():
    system = known_systems()["wong-wang"]()
    u = input_signal(system, ["c=10", "c=50@1:2", "mu0=0@500 ms:3"])
    at = u(torch.tensor([0.0, 0.7, 1.5, 2.5, 3.0]))
    expected = [[30.0, 10.0], [0.0, 10.0], [0.0, 50.0], [0.0, 10.0], [30.0, 10.0]]
    torch.testing.assert_close(at, torch.tensor(expected, dtype=torch.float64))


def test_values_are_read_in_any_unit_of_their_dimension():
    system = known_systems()["lif"]()
    assert float(with_values(system, ["g_L=20e-3 uS"]).g_L) == pytest.approx(20.0)
    assert initial_state(system, ["V=-0.06 V"]) == pytest.approx([-60.0])
    assert parse_span("0:0.5 nA", "pA", "--span") == (0.0, 500.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("simulate", "lief", "--until", 10), "did you mean 'lif'"),
        (("simulate", "lif", "--until", -1), "must be above 0"),
        (("simulate", "lif", "--until", "10 mV"), "dimension"),
        (("simulate", "lif", "--until", 10, "--input", "J=1"), "no input is called 'J'"),
        (("simulate", "lif", "--until", 10, "--set", "g_l=1"), "did you mean 'g_L'"),
        (("simulate", "lif", "--until", 10, "--start", "V"), "takes NAME=VALUE"),
        (("simulate", "lif", "--until", 10, "--figure", "x.pdf"), "ends in .svg or .png"),
        (("simulate", "lif", "--until", 10, "--method", "magic"), "method must be one of"),
        (("bifurcate", "morris-lecar", "J"), "no input or constant 'J'"),
        (("bifurcate", "morris-lecar", "I", "--span", "5"), "takes LOW:HIGH"),
        (("bifurcate", "morris-lecar", "I", "--span", "5:1"), "must increase"),
        (("bifurcate", "morris-lecar", "g_K"), "has no range of its own"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_carried_out_exits_with_2_and_says_why(cli, words, told):
    ended = cli(*words)
    assert ended.code == 2
    assert told in ended.err


@pytest.mark.slow
def test_the_diagram_of_a_neuron_is_a_folder_with_its_points(cli, tmp_path):
    out = tmp_path / "diagram"
    ended = cli("bifurcate", "morris-lecar", "I", "--span", "60:120", "--out", out, "--json")
    assert ended.code == 0
    found = {point["kind"]: point["value"] for point in ended.json["points"]}
    assert found["hopf"] == pytest.approx(93.857618, abs=1e-5)
    assert found["cycle fold"] == pytest.approx(88.2932505, abs=1e-4)
    assert {path.name for path in out.iterdir()} == {
        "equilibria.csv", "cycles-1.csv", "points.json", "diagram.svg", "manifest.json",
    }  # fmt: skip
    again = cli("bifurcate", "morris-lecar", "I", "--span", "60:120", "--out", out)
    assert again.code == 2
    assert cli("verify", out).code == 0


@pytest.mark.slow
def test_every_listed_system_can_be_made_and_simulated_a_little(cli):
    for name, make in known_systems().items():
        system = make()
        ended = cli("simulate", name, "--until", 0.1, "--every", 0.05, "--json")
        assert ended.code == 0, (name, ended.err, ended.out)
        assert set(ended.json["final"]) == set(system.state_names)


def test_a_constant_set_by_hand_is_used():
    with pytest.raises(ArgumentError, match="dimension"):
        with_values(known_systems()["lif"](), ["C=3 mV"])
