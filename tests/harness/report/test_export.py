"""`mopo-bench export`: what each format holds, read back by the tools that read it, is what the records say."""

import json
import sqlite3
import struct

import pandas as pd
import pytest
from mopo_bench.harness.api import load
from mopo_bench.harness.report import export
from mopo_bench.harness.report.choices import EXPORTS

LOSSES = [2.5, 1.25]


@pytest.fixture
def results(records):
    """Three runs of two algorithms, one of which has a metric, a list in its fit, and no number for one evaluation."""
    records.add([[900.0, 1000.0], [1000.0, 1200.0]], steps=2000, overrides={"depth": 3}, stages={"worlds": "x"})
    records.add([[10.0, 20.0]], task="point-angle", algorithm="sac", steps=2000)
    path = records.root / "hopper-medium" / "mopo" / "a" / "seed-0" / "record.json"
    record = json.loads(path.read_text())
    for row, loss in zip(record["evaluations"], LOSSES, strict=True):
        row["metrics"] = {"critic_loss": loss}
    record |= {"stage_records": {"worlds": {"holdout_error": [0.5, 0.25], "epochs": 4}}, "seconds": 100.0}
    path.write_text(json.dumps(record))
    return records.root


def exported(to, results, command, tmp_path):
    library = EXPORTS[to].library
    if library:
        pytest.importorskip(library, reason=f"needs {library}: pip install 'mopo-bench[export]'")
    done = command("export", "--to", to, "--results", results, "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert all(line.startswith(str(tmp_path / "out")) for line in done.out.splitlines())
    return tmp_path / "out"


@pytest.mark.parametrize(("to", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_tidy_files(results, command, tmp_path, to, read):
    out = exported(to, results, command, tmp_path)
    for name, frame in load(results)._asdict().items():
        back = read(out / f"{name}.{to}")
        assert list(back) == list(frame) and len(back) == len(frame) > 0
        for column in frame.select_dtypes("number"):
            assert back[column].to_numpy(float) == pytest.approx(frame[column].to_numpy(float), nan_ok=True)
    runs, fits = read(out / f"runs.{to}"), read(out / f"fits.{to}")
    assert runs["overrides"][0] == "depth=3"
    assert json.loads(fits["holdout_error"][0]) == [0.5, 0.25]


def test_tensorboard_s_own_reader(results, command, tmp_path):
    out = exported("tensorboard", results, command, tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "hopper-medium" / "mopo" / "a" / "seed-0"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("return_mean")] == [(1000, 900.0), (2000, 1000.0)]
    assert [event.value for event in events.Scalars("metrics/critic_loss")] == LOSSES
    assert '"exp_name": "mopo"' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert len(list(out.glob("*/*/*/seed-*"))) == 3


def records_of(path):
    """The parts of an offline run's file: LevelDB's log, after seven bytes of its own."""
    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield part
            part = b""


@pytest.mark.slow
def test_weights_and_biases_offline_runs(results, command, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'mopo-bench[export]'")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody is asked
    out = exported("wandb", results, command, tmp_path)
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in out.glob("wandb/offline-run-*/*.wandb"):
        parsed = list(map(Record.FromString, records_of(path)))
        (name,) = {each.run.display_name for each in parsed if each.HasField("run")}
        config = {
            item.key: json.loads(item.value_json) for each in parsed if each.HasField("run") for item in each.run.config.update
        }
        history = [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.history.item}
            for each in parsed
            if each.HasField("history")
        ]
        found[name] = config, history
    assert len(found) == 3
    config, history = found["hopper-medium/mopo/a/seed-0"]
    assert [(row["global_step"], row["charts/episodic_return"]) for row in history] == [(1000, 900.0), (2000, 1000.0)]
    assert [row["metrics/critic_loss"] for row in history] == LOSSES
    assert (config["env_id"], config["exp_name"], config["seed"]) == ("hopper-medium@v0", "mopo", 0)


def test_openrlbenchmark_s_cache_as_its_offline_mode_asks(results, command, tmp_path):
    """Its query is by `config.env_id.value` and `config.exp_name.value`; then it reads `run.json` and `run_df.csv` by id."""
    place = exported("openrlbenchmark", results, command, tmp_path) / "mopo-bench" / "mopo-bench"
    with sqlite3.connect(place / "offline.sqlite") as database:
        query = """select id, path from offlinerun where project = 'mopo-bench' and entity = 'mopo-bench'
            and json_extract(config, '$.env_id.value') = ? and json_extract(config, '$.exp_name.value') = ?"""
        found = database.execute(query, ("hopper-medium@v0", "mopo")).fetchall()
    assert len(found) == 2
    identity, path = found[0]
    assert json.loads(path) == ["mopo-bench", "mopo-bench", identity]
    about = json.loads((place / identity / "run.json").read_text())
    assert about["config"]["seed"]["value"] == 0 and about["state"] == "finished" and about["user"]["username"]
    frame = pd.read_csv(place / identity / "run_df.csv")[["global_step", "_runtime", "charts/episodic_return"]].dropna()
    assert frame.to_numpy().tolist() == [[1000.0, 50.0, 900.0], [2000.0, 100.0, 1000.0]]


def test_openrlbenchmark_s_times_are_those_at_which_it_was_evaluated(results, command, tmp_path):
    """Not shared out over the steps, which an older record leaves no other way than."""
    path = results / "hopper-medium" / "mopo" / "a" / "seed-0" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds_at": {"1000": 70.5, "2000": 100.0}}))
    place = exported("openrlbenchmark", results, command, tmp_path) / "mopo-bench" / "mopo-bench"
    (lines,) = place.glob("*-mopo-*seed-0/run_df.csv")
    assert pd.read_csv(lines)["_runtime"].tolist() == [70.5, 100.0]


def test_what_cannot_be_exported_is_said_in_a_line(results, command, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    for to, out, said in (
        ("csv", full, "it is not empty"),
        ("parquet", tmp_path / "new", 'needs pyarrow: pip install "mopo-bench[export]"'),
        ("tensorboard", tmp_path / "new", 'needs tensorboard: pip install "mopo-bench[export]"'),
        ("wandb", tmp_path / "new", 'needs wandb: pip install "mopo-bench[export]"'),
    ):
        refused = command("export", "--to", to, "--results", results, "--out", out)
        assert refused.code == 2 and said in refused.err and refused.err.count("\n") == 1
    (results / "point-angle" / "sac" / "a" / "seed-0" / "record.json").write_text("{}")
    refused = command("export", "--to", "csv", "--results", results, "--out", tmp_path / "new")
    assert refused.code == 2 and "not believed: point-angle/sac/a/seed-0" in refused.err
    assert not (tmp_path / "new").exists()
