import json

from clinode.cohort.ledger import Entry, Ledger


def entry(table, action, rows, reason="", variable=""):
    return Entry(table=table, action=action, reason=reason, variable=variable, rows=rows)


def test_a_ledger_balances_when_every_row_went_somewhere():
    entries = [
        entry("observations", "read", 10),
        entry("observations", "kept", 6),
        entry("observations", "dropped", 1, "sentinel"),
        entry("observations", "merged", 1, "repeated"),
        entry("observations", "moved", 2, "descriptor"),
        entry("statics", "filled", 2, "descriptor"),
        entry("statics", "kept", 2),
    ]
    assert Ledger(entries).balanced
    assert not Ledger(entries[:-1]).balanced  # two cells vanished
    assert not Ledger([*entries, entry("observations", "kept", 1)]).balanced
    handed_to_nobody = [entry("a", "read", 1), entry("a", "moved", 1)]
    assert not Ledger(handed_to_nobody).balanced


def test_converted_rows_stand_beside_the_balance():
    entries = [entry("a", "read", 3), entry("a", "kept", 3), entry("a", "converted", 2, "unit")]
    assert Ledger(entries).balanced


def test_equal_entries_add_up_and_empty_ones_disappear():
    ledger = Ledger(
        [
            entry("a", "kept", 3, variable="HR"),
            entry("a", "kept", -1, variable="HR"),
            entry("a", "kept", 4, variable="K"),
            entry("a", "dropped", 0, "sentinel"),
        ]
    )
    assert ledger.to_pandas().values.tolist() == [["a", "kept", "", 6]]
    assert ledger.rows("a", "kept", variable="HR") == 2
    assert list(ledger.by_variable().columns) == ["table", "action", "reason", "variable", "rows"]


def test_an_empty_ledger_is_a_table_of_no_rows():
    assert list(Ledger().to_pandas().columns) == ["table", "action", "reason", "rows"]
    assert Ledger().balanced


def test_a_ledger_comes_back_from_json():
    ledger = Ledger([entry("a", "read", 3), entry("a", "kept", 3, variable="HR")])
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger
