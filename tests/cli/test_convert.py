import pyarrow.parquet as pq


def test_shards_make_a_meds_folder_that_every_command_reads(cli, stays, tmp_path, secret):
    out = tmp_path / "meds"
    first = cli("convert", stays, out, "--shard", "1/2", "--json")
    assert first.code == 0, first.err
    assert first.json["missing"] == [2]
    assert first.json["balanced"] is True
    assert not out.exists()
    second = cli("convert", stays, out, "--shard", "2/2")
    assert second.code == 0, second.err
    assert "whole" in second.out
    assert secret not in second.out + second.err
    checked = cli("check", out, "--json", "--out", tmp_path / "fingerprint.json")
    assert checked.code == 0, checked.err
    assert checked.json["n_subjects"] == 80
    labels = pq.read_table(out / "labels" / "died")
    assert len(labels) == 80
    assert first.json["n_subjects"] < 80


def test_a_wrong_shard_and_an_output_within_the_data_are_refused(cli, stays, tmp_path):
    assert cli("convert", stays, tmp_path / "meds", "--shard", "3/2").code == 2
    inside = cli("convert", stays, stays / "meds")
    assert inside.code == 2
    assert "within the data" in inside.err


def test_risks_are_written_in_the_prediction_schema(cli, run_folder, stays, tmp_path):
    out = tmp_path / "p.parquet"
    ended = cli("predict", run_folder, stays, "--out", out, "--as", "meds", "--json")
    assert ended.code == 0, ended.err
    table = pq.read_table(out)
    names = ["subject_id", "prediction_time", "boolean_value", "predicted_boolean_probability"]
    assert table.column_names == names
    assert len(table) == ended.json["rows"] == 80
    assert "2000-01-01" in ended.json["words"][0]
    wrong = cli("predict", run_folder, stays, "--out", tmp_path / "p.csv", "--as", "meds")
    assert wrong.code == 2
    assert "Parquet" in wrong.err
    call = ("predict", run_folder, stays, "--out", out)
    assert cli(*call, "--as", "omop").code == 2
    assert cli(*call, "--threshold", "0.5").code == 2
