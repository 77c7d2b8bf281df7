"""Forty texts, dates and values of subjects are planted in a cohort, and none may come out.

A cohort is written with them in every place where a person can have typed something, every command
is called on it in good order and with broken input, and all that is printed or written is searched.
What exists to hold subjects is listed in `OF_SUBJECTS`, with the reason.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

IDS = ("Kowalczyk-Zanna", "MRN-90817263", "z.berg@ward.example", "O'Harrigan Fintan",
       "id 55-1207-44", "Żelazo", "77310000451", "2031-04-02/7")  # fmt: skip
TEXTS = {
    "value": "refused by Dunwoodie", "variable": "phone call to wife Ottoline",
    "unit": "per Fennimore", "comment": "fell in bathroom, Prendergast",
    "category": "bed of Quillfeather", "number": "Bixby Thornwood", "kin": "Vandersloot Oonagh",
    "outcome": "died at home, Tewkesbury", "dose": "heparin by Mossgrave",
    "doctor": "Dr Halvorsen-Pike", "town": "Nether Wallop", "phone": "555-0192-88",
}  # fmt: skip
DATES = {
    "birth": "1957-03-09", "row": "2031-05-17 08:15", "value": "17.05.2031",
    "outcome": "2031-06-21", "admitted": "2031-05-14",
}  # fmt: skip
VALUES = {  # digits that rounding to any place only shortens
    "heart rate": "173.1324132", "temperature": "36.91324123", "impossible": "918273.2413",
    "age": "88.7341", "weight": "71.23412", "dose": "17.23412341", "hour": "13.37413241",
    "severity": "0.7714132", "single": "4.413241",
}  # fmt: skip
PLACES = ("Aldous Grimthorpe", "Bartholomew Wexcombe", "Persis Attenborough",
          "Lucasta Penhaligon", "Sidony Fairweather", "Ignatius Marchbanks")  # fmt: skip
DATA, RUNS, OUT, TABLES, BRAINS, SETTINGS = PLACES  # folders, named as a person might
CANARIES = (*IDS, *TEXTS.values(), *DATES.values(), *(v[:6] for v in VALUES.values()), *PLACES)

OF_SUBJECTS = {  # in a folder of ours: who may be in it, and why
    "predictions.*": "a row a subject",
    "split.parquet": "who took which part",
    "attributions.parquet": "a row an event of a subject",
    "gates.parquet": "a row a subject",
    "kinds.parquet": "a row a subject",
    "meds/data/*": "the data set itself, as MEDS",
    "parts.unfinished/1/*": "a part of the data set itself",
    "meds/metadata/subject_splits.parquet": "who took which part",
    "meds/metadata/clinode.json": "the data set itself: its names and levels as they were read",
    "policy.yaml": "rules about the data, for those who keep them to edit",
    "death/schema.json": "what the model reads, by name: part of the weights, and kept like them",
}
OF_ONE = re.compile(r"subject-\d+\.html$")  # a page of one subject holds its values, no identifier


def test_the_canaries_are_forty_and_none_hides_another():
    assert len(CANARIES) == 40
    assert not [(a, b) for a in CANARIES for b in CANARIES if a != b and a in b]


def found_in(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


def plant(root: Path, n_subjects: int = 90) -> Path:
    """A folder of tables with every canary in it, under a folder with the name of one."""
    generator = np.random.default_rng(0)
    folder = root / DATA / "stays"
    folder.mkdir(parents=True)
    rows: list[tuple[Any, ...]] = []
    outcomes, inputs, statics = [], [], []
    for number in range(n_subjects):
        sick = generator.random() < 0.4
        who = IDS[number] if number < len(IDS) else f"p{number:03d}"
        for hour in np.sort(generator.uniform(0, 24, 6 + 4 * sick)).round(2):
            pulse, heat = 80 + 25 * sick + generator.normal(0, 8), 37 + generator.normal(0, 0.4)
            rows.append((who, hour, "HR", round(pulse, 1), "bpm", "", ""))
            rows.append((who, hour, "Temp", round(heat, 2), "C", "", ""))
        outcomes.append([who, int(sick), round(generator.random(), 2), "home"])
        inputs.append((who, 2.0, 5.0, "heparin", round(generator.uniform(1, 5), 1)))
        age, weight = int(generator.integers(20, 89)), round(generator.uniform(50, 100), 1)
        born = f"19{number:02d}-01-02"
        statics.append([who, age, weight, "ABC"[number % 3], number % 7, f"kin {number}", born])
    rows += [
        (IDS[0], 3.5, "HR", VALUES["heart rate"], "bpm", TEXTS["comment"], TEXTS["doctor"]),
        (IDS[1], VALUES["hour"], "Temp", VALUES["temperature"], TEXTS["unit"], "", TEXTS["phone"]),
        (IDS[2], 4.0, "HR", VALUES["impossible"], "bpm", DATES["admitted"], ""),
        (IDS[3], 5.0, "HR", TEXTS["value"], "bpm", "", ""),
        (IDS[3], 5.5, "Temp", DATES["value"], "C", "", ""),
        (IDS[4], 6.0, TEXTS["variable"], VALUES["single"], "1", "", TEXTS["town"]),
        (IDS[5], DATES["row"], "HR", 80, "bpm", "", ""),
        (IDS[5], 7.0, "HR", 81, "bpm", "", ""),
        (IDS[5], 7.0, "HR", 83, "bpm", "", ""),
    ]
    outcomes[1][2:] = [VALUES["severity"], TEXTS["outcome"]]
    outcomes[2][3] = DATES["outcome"]
    inputs += [
        (IDS[2], 1.0, "", "heparin", VALUES["dose"]),
        (IDS[3], 1.0, 2.0, TEXTS["dose"], 3.0),
    ]
    told = (VALUES["age"], VALUES["weight"], TEXTS["category"], TEXTS["number"], TEXTS["kin"])
    statics[0][1:] = [*told, DATES["birth"]]
    tables = {
        "observations": (rows, "subject_id time variable value unit comment seen_by"),
        "outcomes": (outcomes, "subject_id died severity discharged_to"),
        "inputs": (inputs, "subject_id start end variable value"),
        "statics": (statics, "subject_id Age Weight ward score next_of_kin birth"),
    }
    for name, (cells, columns) in tables.items():
        table = pd.DataFrame(cells, columns=columns.split())
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def spoiled(planted, tmp_path) -> Path:
    """The tables, to be spoiled."""
    return shutil.copytree(planted, tmp_path / DATA / "stays")


class Watched:
    """Calls commands, and remembers what came out of each that should not have."""

    def __init__(self, cli: Callable[..., Any]):
        self.cli = cli
        self.leaks: dict[str, list[str]] = {}
        self.n_calls = 0

    def __call__(self, *words: object, code: int | None = 0) -> Any:
        ended = self.cli(*words)
        name = f"{self.n_calls} {words[0]}"
        self.n_calls += 1
        self.note(name, ended.out + ended.err)
        assert code in (None, ended.code), f"{words[0]}: {ended.code}, {ended.err}"
        return ended

    def note(self, where: str, text: str) -> None:
        if told := found_in(text):
            self.leaks.setdefault(where, []).extend(told)

    def look_into(self, folder: Path) -> int:
        """Search every file below a folder; returns how many there were."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            name = path.relative_to(folder).as_posix()
            if any(fnmatch(name, f"*{pattern}") for pattern in OF_SUBJECTS):
                continue
            text = path.read_bytes().decode("utf-8", errors="replace")
            if OF_ONE.search(name):
                others = (*IDS, *PLACES, *DATES.values())
                self.note(name, "\n".join(canary for canary in others if canary in text))
            else:
                self.note(name, text)
        return len(files)


@pytest.fixture
def watched(cli) -> Watched:
    return Watched(cli)


@pytest.fixture(scope="module")
def fitted(cli, planted, quick, tmp_path_factory) -> tuple[Path, Any]:
    """A run on the planted cohort, in a folder named after a person, and what was said of it."""
    out = tmp_path_factory.mktemp("fitted") / RUNS / "death"
    ended = cli("fit", planted, "--outcome", "died", "--out", out, *quick)
    assert ended.code == 0, ended.err
    return out, ended


@pytest.mark.slow
def test_no_canary_comes_out_of_any_command_on_data_in_good_order(
    watched, planted, fitted, tmp_path
):
    run, said = fitted
    watched.note("fit", said.out + said.err)
    out = tmp_path / OUT
    for answer in ((), ("--json",)):
        watched("evaluate", run, planted, "--part", "all", "--out", out / "e.json", *answer)
        watched(
            "check", planted, "--out", out / "f.json", "--suggest", out / "policy.yaml", *answer
        )
        watched("check", planted, "--run", run, "--out", out / "g.json", *answer)
        watched("predict", run, planted, "--out", out / "predictions.csv", *answer)
        watched("predict", run, planted, "--as", "meds", "--out", out / "predictions.parquet")
        if not answer:
            few = ("--part", "all", "--subjects", "8")  # all with an identifier among the canaries
            watched("explain", run, planted, "--out", out / "maps", "--kinds", *few)
            watched("report", run, planted, "--out", out / "report", "--kinds", *few)
        for folder in (run, out / "maps", out / "report"):
            watched("verify", folder, *answer)
    watched("convert", planted, out / "meds", "--json")
    watched("convert", planted, out / "parts", "--shard", "1/2")
    assert watched.look_into(out) > 30
    assert watched.look_into(run.parent) > 5
    assert watched.leaks == {}


@pytest.mark.slow
def test_no_canary_comes_out_of_commands_that_read_other_tables_or_none(
    watched, tmp_path, monkeypatch
):
    folder, out = tmp_path / TABLES, tmp_path / OUT
    folder.mkdir()
    draw = np.random.default_rng(1)
    trials = pd.DataFrame({"participant": IDS[0], "latency": 1 / draw.normal(5, 1, 60).clip(2)})
    trials["seen_by"] = TEXTS["doctor"]
    trials.to_csv(folder / "trials.csv", index=False)
    for name in ("one", "two"):
        table = pd.DataFrame(draw.normal(size=(6, 4)))
        table.insert(0, "stimulus", list("abcdef"))
        table.to_csv(folder / f"{name}.csv", index=False)
    names = list("abcd")
    weights = pd.DataFrame(draw.uniform(0.1, 1, (4, 4)) * (1 - np.eye(4)), names, names)
    weights.to_csv(folder / "brain.csv")
    brain = (folder / "brain.csv", "--to", "E:a=rest+0.02", "--nulls", "0", "--set", "K=2")
    monkeypatch.chdir(folder)
    picked = ("--only", f"participant={IDS[0]}", "--figure", out / "d.svg")
    watched("decide", folder / "trials.csv", "--time", "latency", *picked)
    watched("control", *brain, "--out", out / "brain", "--json")
    for answer in ((), ("--json",)):
        files = (folder / "one.csv", folder / "two.csv", "--figure", out / "s.svg")
        watched("similarity", *files, "--resamples", "20", *answer)
        watched("simulate", "morris-lecar", "--until", "20", "--out", out / "t.csv", *answer)
        span = ("--span", "0:20", "--no-cycles", "--replace")
        watched("bifurcate", "morris-lecar", "I", *span, "--out", out / "turns", *answer)
        watched("verify", out / "brain", *answer)
        watched("doctor", *answer, code=None)
        watched("list", *answer)
    assert watched.look_into(out) > 8
    planted = {IDS[0], TEXTS["doctor"], *PLACES}  # numbers of these tables are of nobody
    assert not planted & {canary for told in watched.leaks.values() for canary in told}


def _appended(line: str | bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "observations.csv"
        path.write_bytes(path.read_bytes() + (line.encode() if isinstance(line, str) else line))

    return spoil


def _rewritten(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / f"{name}.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)

    return spoil


def _as_parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "observations.csv"
        change(pd.read_csv(path, dtype=str)).to_parquet(folder / "observations.parquet")
        path.unlink()

    return spoil


def _without_header(folder: Path) -> None:
    for path in folder.glob("*.csv"):
        _, _, rest = path.read_text(encoding="utf-8").partition("\n")
        path.write_text(rest, encoding="utf-8")


def _truncated(folder: Path) -> None:
    path = folder / "observations.csv"
    pd.read_csv(path, dtype=str).to_parquet(folder / "observations.parquet")
    whole = (folder / "observations.parquet").read_bytes()
    (folder / "observations.parquet").write_bytes(whole[: len(whole) // 2] + whole[-8:])
    path.unlink()


def _moved_up(folder: Path) -> None:
    """The rows of one subject of the planted ones to the beginning, where strict reading stops."""
    path = folder / "observations.csv"
    table = pd.read_csv(path, dtype=str)
    pd.concat([table.tail(9), table.head(len(table) - 9)]).to_csv(path, index=False)


def _cell_of_bytes(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(value=table["value"].map(str.encode))


def _cell_of_lists(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(value=[[value] for value in table["value"]])


ROW = f"{IDS[0]},{DATES['row']},{TEXTS['variable']},{VALUES['single']}"
BROKEN = {
    "no header": (_without_header, ()),
    "a ragged row": (_appended(f"{ROW},a,b,c,d,e,f\n"), ()),
    "a quotation mark left open": (_appended(f'"{ROW},bpm,,\n'), ()),
    "not UTF-8": (_appended(f"{ROW},bpm,,Dr H\xe4lvorsen\n".encode("latin-1")), ()),
    "a NUL byte": (_appended(f"{ROW}\x00,bpm,,\n"), ()),
    "a formula": (_appended(f"={ROW},bpm,,\n"), ("--strict",)),
    "an undeclared text, strictly": (_moved_up, ("--strict",)),
    "no column of values": (_rewritten("observations", lambda t: t.drop(columns="value")), ()),
    "two columns of one name": (
        _rewritten("observations", lambda t: t.set_axis([*t.columns[:-1], "unit"], axis=1)),
        (),
    ),
    "a column named by a cell": (
        _rewritten("observations", lambda t: t.rename(columns={"value": IDS[1]})),
        (),
    ),
    "outcomes that disagree": (
        _rewritten("outcomes", lambda t: pd.concat([t, t.assign(severity="0.1")])),
        (),
    ),
    "statics that disagree": (
        _rewritten("statics", lambda t: pd.concat([t, t.assign(ward="C")])),
        (),
    ),
    "dates in place of times": (
        _rewritten("observations", lambda t: t.assign(time=DATES["row"])),
        ("--strict",),
    ),
    "prediction times that are dates": (
        _rewritten("outcomes", lambda t: t.assign(prediction_time=DATES["outcome"])),
        (),
    ),
    "treatments that end as dates": (
        _rewritten("inputs", lambda t: t.assign(end=DATES["outcome"])),
        ("--strict",),
    ),
    "a truncated Parquet": (_truncated, ()),
    "bytes in Parquet": (_as_parquet(_cell_of_bytes), ()),
    "lists in Parquet": (_as_parquet(_cell_of_lists), ()),
    "timestamps in Parquet": (
        _as_parquet(lambda t: t.assign(time=pd.Timestamp(DATES["admitted"]))),
        (),
    ),
    "a subject column that is told wrongly": (lambda folder: None, ("--subject", IDS[0])),
    "a group that is told wrongly": (lambda folder: None, ("--group", "next_of_kin")),
}


QUICK = ("no header", "a ragged row", "an undeclared text, strictly", "statics that disagree",
         "text.csv", "headless.csv")  # fmt: skip


def _mostly_slow(names: Iterable[str]) -> list[Any]:
    slow = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(name, marks=slow[name in QUICK]) for name in sorted(names)]


@pytest.mark.parametrize("kind", _mostly_slow(BROKEN))
def test_no_canary_comes_out_of_broken_tables(watched, spoiled, tmp_path, kind):
    spoil, words = BROKEN[kind]
    spoil(spoiled)
    out = tmp_path / OUT
    watched("check", spoiled, "--out", out / "f.json", *words, "--debug", "--json", code=None)
    watched.look_into(out)
    assert watched.leaks == {}


def test_no_canary_is_kept_of_a_conversion_that_was_told_wrongly(watched, planted, tmp_path):
    words = ("--subject", IDS[0], "--debug")
    watched("convert", planted, tmp_path / OUT / "meds", *words, code=3)
    assert watched.look_into(tmp_path / OUT) == 1
    assert watched.leaks == {}


@pytest.mark.slow
def test_no_canary_comes_out_of_a_run_that_meets_bad_data_or_was_altered(
    watched, spoiled, fitted, tmp_path
):
    run, out = fitted[0], tmp_path / OUT
    _appended(f"{IDS[0]},9.0,{TEXTS['dose']},{VALUES['single']},1,,\n")(spoiled)
    watched("predict", run, spoiled, "--out", out / "p.csv", "--debug", code=3)
    watched("evaluate", run, spoiled, "--part", "all", "--json", code=3)
    watched("check", spoiled, "--run", run, "--out", out / "f.json", "--debug")
    watched("fit", spoiled, "--outcome", "discharged_to", "--out", out / "x", "--debug", code=3)
    watched("fit", spoiled, "--outcome", "severity", "--out", out / "x", "--debug", code=3)
    watched("fit", spoiled, "--outcome", IDS[1], "--out", out / "x", "--debug", code=3)
    watched("fit", spoiled, "--outcome", "died", "--out", run, "--seed", "7", "--debug", code=2)
    for name in ("model.safetensors", "schema.json", "config.yaml", "split.parquet"):
        altered = shutil.copytree(run, tmp_path / RUNS / name / "death")
        content = (altered / name).read_bytes()
        (altered / name).write_bytes(TEXTS["kin"].encode() + content[: len(content) // 2])
        for words in (("verify", altered), ("predict", altered, spoiled, "--out", out / "p.csv")):
            watched(*words, "--debug", "--json", code=3)
    (altered / "manifest.json").write_text(f'{{"kind": "{IDS[0]}"', encoding="utf-8")
    watched("verify", altered, "--debug", "--json", code=3)
    watched.look_into(out)
    assert watched.leaks == {}


@pytest.mark.slow
def test_no_canary_comes_out_of_an_occupied_or_impossible_place(watched, planted, tmp_path):
    full = tmp_path / OUT / "full"
    full.mkdir(parents=True)
    (full / "stays.csv").write_text(IDS[0], encoding="utf-8")
    within = full / "stays.csv" / SETTINGS
    for answer in (("--debug",), ("--json",)):
        watched("convert", planted, full, *answer, code=2)
        watched("demo", full, *answer, code=2)
        watched("fit", planted, "--outcome", "died", "--out", full, *answer, code=2)
        watched("check", planted, "--out", within / "f.json", *answer, code=2)
        watched("verify", full, *answer, code=3)
        watched("verify", within / "run", *answer, code=3)
        watched("predict", full, planted, "--out", full / "p.csv", *answer, code=3)
        for name in ("evaluate", "explain", "report"):
            place = () if name == "evaluate" else ("--out", tmp_path / SETTINGS / "x")
            watched(name, full, planted, *place, *answer, code=3)
        watched("bench", "attribution", "--out", within / "b.csv", *answer, code=2)
        watched(
            "simulate", "morris-lecar", "--until", "1", "--out", within / "s.csv", *answer, code=2
        )
        watched("bifurcate", "morris-lecar", "I", "--out", full, *answer, code=2)
        watched("control", "generated", "--to", "E:x=1", "--out", full, *answer, code=2)
    assert watched.leaks == {}


def test_no_canary_that_was_typed_comes_back(watched, planted, tmp_path):
    out = ("--out", tmp_path / OUT / "f.json")
    for answer in (("--debug",), ("--json",)):
        watched("check", planted, IDS[0], *out, *answer, code=2)
        watched("check", planted, *out, "--subject", IDS[3], *answer, code=3)
        watched("fit", planted, *out, "--outcome", "died", "--at", DATES["row"], *answer, code=2)
        watched("fit", planted, *out, "--outcome", "died", "--seed", IDS[6] + "x", *answer, code=2)
        watched("report", PLACES[1], planted, *out, "--subjects", IDS[1], *answer, code=2)
        watched("check", planted.parent / "absent" / IDS[1], *out, *answer, code=3)
    assert watched.leaks == {}


def test_no_canary_comes_out_of_settings_that_break_off(watched, planted, tmp_path):
    folder = tmp_path / SETTINGS
    folder.mkdir()
    texts = {
        "broken": f'outcome: "{TEXTS["comment"]}\nseen: [{IDS[0]}\n',
        "list": f"- {TEXTS['doctor']}\n- {DATES['birth']}\n",
        "key": f"{IDS[1]}: {TEXTS['town']}\n",
        "tag": f"a: !!python/object {TEXTS['phone']}\n",
    }
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        out = ("--out", tmp_path / OUT / "x", "--debug", "--json")
        for words in (("check", "--policy", path), ("check", "--task-file", path)):
            watched(*words, planted, *out, code=None)
        watched("fit", planted, "--config", path, *out, code=2)
        watched("report", tmp_path / RUNS, planted, "--facts", path, *out, code=2)
    assert watched.leaks == {}


TRIALS = "participant,latency,target\n"
BAD_TABLES = {
    "ragged.csv": f"{TRIALS}{IDS[0]},0.2,a\n{IDS[1]},0.3,b,{TEXTS['comment']},x\n",
    "open.csv": f'{TRIALS}"{IDS[0]},0.2,a\n{TEXTS["comment"]},0.3,b\n',
    "text.csv": f"{TRIALS}{IDS[0]},{TEXTS['value']},a\n{IDS[1]},{DATES['row']},b\n",
    "headless.csv": f"{IDS[0]},{VALUES['single']},{TEXTS['doctor']}\n{IDS[1]},0.3,b\n",
    "empty.csv": "",
    "latin.csv": f"{TRIALS}{IDS[0]},0.2,\udcff\n",
    "broken.parquet": f"PAR1{TEXTS['kin']}PAR1",
    "broken.npy": f"\x93NUMPY{TEXTS['kin']}",
    "broken.mat": f"MATLAB 5.0 {TEXTS['kin']}",
    "broken.npz": f"PK{TEXTS['kin']}",
    "broken.zip": f"PK{TEXTS['kin']}",
    "lines.tsv": f"{TEXTS['kin']}\t{DATES['birth']}\n1\t{TEXTS['phone']}\n",
    "lines.txt": f"{TEXTS['kin']} {DATES['birth']}\n",
}


@pytest.mark.parametrize("name", _mostly_slow(BAD_TABLES))
def test_no_canary_comes_out_of_other_tables_that_cannot_be_read(watched, tmp_path, name):
    folder = tmp_path / TABLES
    folder.mkdir()
    path = folder / name
    path.write_bytes(BAD_TABLES[name].encode("utf-8", errors="surrogateescape"))
    words = ("--debug", "--json")
    picked = ("--only", f"participant={IDS[0]}")
    ended = [
        watched("decide", path, "--time", "latency", "--condition", "target", *words, code=None),
        watched("decide", path, "--time", "latency", *picked, *words, code=None),
        watched("similarity", path, path, *words, code=None),
        watched("similarity", path, "--subject", path, "--subject", path, *words, code=None),
        watched("control", path, "--to", "E:x=1", *words, code=None),
        watched("control", path, "--labels", path, "--to", "E:x=1", *words, code=None),
    ]
    assert watched.leaks == {}
    assert {one.code for one in ended} <= {2, 3}, "a file that cannot be read is no fault of ours"


def test_no_canary_comes_out_of_codes_and_records_that_cannot_be_read(watched, tmp_path):
    folder = tmp_path / DATA / "meds"
    (folder / "data").mkdir(parents=True)
    events = pd.DataFrame(
        {
            "subject_id": int(IDS[6]),
            "time": pd.to_datetime([DATES["admitted"], DATES["outcome"]]).astype("datetime64[us]"),
            "code": [TEXTS["dose"], f"{TEXTS['value']}//{TEXTS['phone']}"],
            "numeric_value": np.float32(VALUES["single"]),
        }
    )
    events.to_parquet(folder / "data" / "0.parquet", index=False)
    records = tmp_path / DATA / "set-a"
    records.mkdir()
    header = "Time,Parameter,Value"
    out = ("--out", tmp_path / OUT / "f.json", "--debug", "--json")
    watched("check", folder, *out, code=3)
    for line in (f"{DATES['row']},HR,{TEXTS['value']},1", f'01:00,"{TEXTS["variable"]},1'):
        text = f"{header}\n00:00,RecordID,{IDS[6]}\n{line}\n"
        (records / f"{IDS[6]}.txt").write_text(text, encoding="utf-8")
        watched("check", records, *out, code=3)
    assert watched.leaks == {}


def test_no_canary_comes_out_of_a_fault_of_ours(watched, planted, tmp_path, monkeypatch):
    def fail(*given: object, **told: object) -> None:
        try:
            raise KeyError(IDS[0])
        except KeyError as error:
            row = pd.DataFrame({"kin": [TEXTS["kin"]], "value": [VALUES["age"]]})
            raise ValueError(f"could not convert {row}") from error

    monkeypatch.setattr("clinode.cohort.read_cohort", fail)
    for answer in ((), ("--debug",), ("--json",), ("--debug", "--json")):
        ended = watched("check", planted, "--out", tmp_path / OUT / "f.json", *answer, code=5)
    assert watched.leaks == {}
    assert "KeyError" in ended.err
    assert "which led to" in ended.err
    assert "clinode/cli/check.py, line" in ended.err
