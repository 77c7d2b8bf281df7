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
