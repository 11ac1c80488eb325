"""Every run once, in order; and whatever is wrong with a file is said in its row."""

import csv
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_runs import measured, write_cell, write_run

from ddpm import report
from ddpm.report import collect


def test_each_run_is_found_once_however_it_is_reached(tmp_path):
    write_run(tmp_path / "runs/digits/b", metrics=measured(fid=1.0))
    write_run(tmp_path / "runs/digits/a")
    write_cell(tmp_path / "runs/sweeps/s", 1, "objective=vlb")
    write_cell(tmp_path / "runs/sweeps/s", 0, "objective=simple")
    for hidden in ("evaluations/x", "wandb/y", ".z"):
        write_run(tmp_path / "runs" / hidden)
    (tmp_path / "runs/digits/b/evaluations/c").mkdir(parents=True)
    (tmp_path / "runs/digits/b/evaluations/c/config.yaml").write_text("{}")
    (tmp_path / "runs/aa_latest").symlink_to("digits/b")
    (tmp_path / "runs/sweeps/latest").symlink_to("s")
    (tmp_path / "runs/digits/circle").symlink_to(tmp_path / "runs")
    again = ["runs/digits/a", "runs/sweeps/latest", "runs/sweeps/s/000_cell"]
    found = collect.within([tmp_path / "runs", *(tmp_path / folder for folder in again)])
    names = [str(run.folder.relative_to(tmp_path / "runs")) for run in found]
    assert names == ["digits/a", "digits/b", "sweeps/s/000_cell", "sweeps/s/001_cell"]
    assert [run.overrides for run in found] == [None, None, {"objective": "simple"}, {"objective": "vlb"}]


def test_a_run_that_was_named_before_its_sweep_comes_first_and_once(tmp_path):
    cells = [write_cell(tmp_path / "s", k, f"seed={k}") for k in range(3)]
    assert [run.folder for run in collect.within([cells[1], tmp_path / "s"])] == [cells[1], cells[0], cells[2]]


def test_what_has_not_begun_is_a_row_with_its_reason(tmp_path):
    write_cell(tmp_path, 0, "objective=hybrid", status="refused", reason="needs a learned variance", begun=False)
    write_cell(tmp_path, 1, "objective=vlb", status="waiting", begun=False)
    assert [(run.status, run.why) for run in collect.within([tmp_path])] == [
        ("refused", "needs a learned variance"),
        ("waiting", ""),
    ]


def test_a_run_without_a_sweep_is_as_finished_as_its_files_say(tmp_path):
    write_run(tmp_path / "a", step=100)
    write_run(tmp_path / "b", step=60)
    assert [(run.status, run.reason, run.why) for run in collect.within([tmp_path])] == [
        ("finished", "", ""),
        ("unfinished", "step 60 of 100", "step 60 of 100"),
    ]


@pytest.mark.parametrize(("step", "noted"), [(100, False), (120, False), (60, True), (None, False)])
def test_numbers_of_an_earlier_step_are_noted(tmp_path, step, noted):
    folder = write_run(tmp_path / "a", step=100, metrics=measured(fid=1.0))
    content = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(content | {"step": step}))
    (run,) = collect.within([tmp_path])
    assert run.why == "measured at step 60, and is at step 100: evaluate it again" * noted
    assert run.measured["fid"]["value"] == 1.0


def test_training_time_is_the_images_over_their_rate(tmp_path):
    (run,) = collect.within([write_run(tmp_path / "a", step=100)])
    assert run.training_seconds == pytest.approx(100 * 64 / 640)


HALF = {
    "results.json": '{"metrics": {"fid": {"val',
    "config.yaml": "data: {batch_size: 64\nseed",
    "metrics.csv": "step,train/loss\n20,0.5\n40",
    "bound.csv": "t,term,term_stderr\n1.0,1.6,0.1\n2.0,ab",
    "rate_distortion.csv": "reverse_step,t,rate_bits_per_dim,rmse\n1000,1",
}
WRONG = [
    *HALF.items(),
    ("results.json", "[1, 2]"),
    ("results.json", '{"metrics": [1], "protocol": {}}'),
    ("results.json", '{"metrics": {"fid": 3}, "protocol": {}}'),
    ("results.json", '{"metrics": {}, "protocol": 7}'),
    ("results.json", '{"metrics": {}, "protocol": {}, "published": [1]}'),
    ("results.json", "[" * 100_000),
    ("results.json", '{"metrics": {}, "protocol": ' + '{"a": ' * 2_000 + "1" + "}" * 2_001),
    ("config.yaml", "seed: !!python/object/apply:os.mkdir ['was here']"),
    ("config.yaml", "a: &a [x, x]\nb: [*a, *a]"),
    ("config.yaml", "- 1"),
    ("metrics.csv", "train/loss\n0.5"),
    ("metrics.csv", "\x00\x01\n\x02"),
    ("bound.csv", "a,b\n1,2"),
    ("bound.csv", '"t,term\n1'),
]


@pytest.mark.parametrize(("name", "content"), WRONG)
@pytest.mark.long
def test_a_damaged_file_is_said_in_its_row_and_the_rest_stays(workspace, name, content, request):
    if not name.endswith(".csv"):  # from which no curve is drawn
        request.getfixturevalue("undrawn")
    write_cell(workspace / "s", 0, "objective=vlb", metrics=measured(fid=2.0), choices={"objective": "vlb"})
    damaged = write_cell(workspace / "s", 1, "objective=simple", metrics=measured(fid=1.0))
    (damaged / name).write_text(content)
    good, bad = collect.within([workspace / "s"])
    assert good.why == ""
    assert bad.status == "finished"
    assert name in bad.why
    assert str(workspace) not in bad.why
    report.publish([workspace / "s"], workspace / "s")
    assert not (workspace / "was here").exists()
    for kind in ("md", "csv", "html"):
        assert (
            bad.why.replace("'", "&#39;") in (workspace / f"s/report.{kind}").read_text()
            or bad.why in (workspace / f"s/report.{kind}").read_text()
        )


def test_the_lines_before_the_damage_are_kept(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "metrics.csv").write_text("step,train/loss\n20,0.5\n40,0.25\n60")
    (found,) = collect.within([run])
    assert found.history == {"train/loss": ([20, 40], [0.5, 0.25])}
    assert "line 4" in found.why


def test_the_bound_is_read_over_t_and_the_distortion_over_the_rate(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "bound.csv").write_text("t,term,term_stderr\n1,0.5,0.1\n2,0.25,0.1\n")
    (run / "rate_distortion.csv").write_text("reverse_step,t,rate_bits_per_dim,rmse\n1,9,0.5,30\n2,8,1.5,20\n")
    (found,) = collect.within([run])
    assert (found.terms, found.rates) == (([1, 2], [0.5, 0.25]), ([0.5, 1.5], [30, 20]))


def test_a_run_that_was_measured_on_its_way_says_so(tmp_path):
    run = write_run(tmp_path / "a", step=60, metrics=measured(fid=9.0))
    (found,) = collect.within([run])
    assert (found.status, found.reason, found.finished) == ("measured", "measured at step 60 of 100", True)
    content = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(content | {"step": 80}))  # further than what was logged
    (found,) = collect.within([run])
    assert found.reason == "measured at step 80 of 100"
    (run / "metrics.csv").unlink()  # an evaluation's folder, in which nothing was trained
    (found,) = collect.within([run])
    assert found.status == "finished"


def test_what_was_measured_of_a_model_of_unknown_length_is_finished(tmp_path):
    run = write_run(tmp_path / "a", step=60, metrics=measured(fid=9.0), settings={"max_steps": None})
    (found,) = collect.within([run])
    assert (found.status, found.reason) == ("finished", "")


def test_the_configuration_is_the_run_s_or_else_that_of_its_results(tmp_path):
    """An evaluation in a sweep has no config.yaml."""
    run = write_run(tmp_path / "a", metrics=measured(fid=9.0), settings={"optimizer.lr": 0.5})
    content = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(content | {"config": {"optimizer": {"lr": 0.25}}}))
    (found,) = collect.within([run])
    assert found.setting("optimizer.lr") == "0.5"
    cell = write_cell(tmp_path / "s", 0, "sampler.steps=5", metrics=measured(fid=9.0))
    (cell / "config.yaml").unlink()
    (cell / "results.json").write_text((run / "results.json").read_text())
    (found,) = collect.within([tmp_path / "s"])
    assert found.setting("optimizer.lr") == "0.25"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [(("seed=2",), "2"), (("evaluation.seed=5",), "5"), (("seed=2", "evaluation.seed=5"), "2"), ((), "2")],
)
def test_the_seed_of_a_run_is_that_of_what_was_swept(overrides, expected, tmp_path):
    write_cell(tmp_path, 0, *overrides, seed=2)
    (run,) = collect.within([tmp_path])
    assert run.seed == expected


def test_numbers_that_are_none_are_said_and_not_used(tmp_path):
    run = write_run(tmp_path / "a", metrics={"fid": {"value": float("nan")}, "inception_score": {"value": 10**400}})
    (found,) = collect.within([run])
    assert not any(found.measured.values())
    assert "fid is nan" in found.why
    assert "inception_score is 1000" in found.why


def test_a_metric_may_have_parts_alone(tmp_path):
    (found,) = collect.within([write_run(tmp_path / "a", metrics={"other": {"low": 1.0, "high": 2.0}})])
    assert (found.measured, found.problems) == ({"other": {"low": 1.0, "high": 2.0}}, [])


@pytest.mark.parametrize("size", ["1" + "0" * 400, "many", "[]", "null"])
def test_no_time_is_said_for_a_batch_size_that_is_no_number(size, tmp_path):
    run = write_run(tmp_path / "a")
    (run / "config.yaml").write_text(f"loader: {{batch_size: {size}}}")
    (found,) = collect.within([run])
    assert found.training_seconds is None


def test_a_damaged_record_is_said_in_its_row(tmp_path):
    folder = write_cell(tmp_path, 0, "seed=1", metrics=measured(fid=1.0))
    wrong = ('{"overrides": [', "[]", '{"overrides": [1]}', '{"overrides": [], "seconds": "x"}')
    for content in (*wrong, '{"overrides": [], "status": 3}', '{"overrides": [], "reason": ["x"]}'):
        folder.with_name(f"{folder.name}.json").write_text(content)
        (run,) = collect.within([tmp_path])
        assert "000_cell.json is not a sweep's record" in run.why
        assert run.finished  # by its files


def test_a_record_elsewhere_is_not_read(tmp_path):
    folder = write_cell(tmp_path / "runs", 0, "seed=1", reason="secret")
    record = folder.with_name("000_cell.json").rename(tmp_path / "elsewhere.json")
    folder.with_name("000_cell.json").symlink_to(record)
    (run,) = collect.within([tmp_path / "runs"])
    assert run.why == "000_cell.json is not a sweep's record of a run"


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    write_run(tmp_path / "a")
    (tmp_path / "locked").mkdir()
    iterdir = Path.iterdir

    def refusing(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    assert [run.folder.name for run in collect.within([tmp_path])] == ["a"]


def test_what_files_say_is_made_printable(tmp_path):
    """Control characters in a stranger's files could move a terminal's cursor."""
    evil = "\x1b[2J\n\x07"
    metrics, published = {evil: {evil: 1.0, "value": 2}}, [{"metric": evil, "verdict": evil}]
    folder = write_cell(tmp_path, 0, f"a{evil}={evil}", status=evil, reason=evil, metrics=metrics, published=published,
                        protocol={evil: evil})  # fmt: skip
    (run,) = collect.within([tmp_path])
    said = [run.status, run.reason, run.why, *run.overrides, *run.measured, *run.protocol, *run.protocol.values()]
    said += [*run.overrides.values(), *run.verdicts, *run.verdicts.values(), *run.measured["\\x1b[2J \\x07"]]
    assert all(text.isprintable() for text in said)
    folder.with_name("000_cell.json").unlink()
    (folder / "results.json").write_text(json.dumps({"metrics": {evil: {"value": evil}}, "protocol": {}}))
    (run,) = collect.within([folder])
    assert run.problems
    assert run.why.isprintable()


def test_runs_of_earlier_versions_have_today_s_settings(tmp_path):
    """Keys that have moved, and defaults of what was not there; from config.yaml as from results.json."""
    earlier = {"data": {"batch_size": 64}, "evaluation": {"kid": {"subset_size": 7}}}
    write_run(tmp_path / "a")
    (tmp_path / "a/config.yaml").write_text(yaml.safe_dump(earlier))
    write_run(tmp_path / "s/000_cell", metrics=measured(fid=1.0))
    write_cell(tmp_path / "s", 0, begun=False)
    (tmp_path / "s/000_cell/config.yaml").unlink()
    content = json.loads((tmp_path / "s/000_cell/results.json").read_text())
    (tmp_path / "s/000_cell/results.json").write_text(json.dumps(content | {"config": earlier}))
    for run in collect.within([tmp_path]):
        keys = ("loader.batch_size", "evaluation.kid.subset_size", "evaluation.kid.subsets", "data.batch_size")
        assert [run.setting(key) for key in keys] == ["64", "7", "100", ""]


def test_another_programs_json_is_no_run(tmp_path):
    (tmp_path / "2024_prices.json").write_text('{"apples": 3}')
    assert collect.within([tmp_path]) == []


def test_what_is_not_a_file_of_ours_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"metrics": {"fid": {"value": 1}}, "protocol": {}}')
    run = write_run(tmp_path / "runs/a")
    (run / "results.json").symlink_to(secret)
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")  # reading it would wait for ever
    with (run / "bound.csv").open("wb") as file:
        file.truncate(1 << 40)
    (found,) = collect.within([run])
    assert found.measured == {}
    assert "results.json: leads out" in found.why
    assert "metrics.csv: not a file" in found.why
    assert "bound.csv: larger" in found.why


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e200", "5e-324", "inf", "nan"])
@pytest.mark.long
def test_absurd_numbers_do_not_end_the_report(value, workspace):
    number = float(value)
    run = write_run(workspace / "runs/a", metrics={"fid": {"value": number}, "kid": {"value": 1.0, "std": number}})
    write_run(workspace / "runs/b", metrics={"fid": {"value": 2.0}, "kid": {"value": number, "std": number}})
    (run / "metrics.csv").write_text(f"step,train/loss,{value}\n20,0.5,{value}\n40,{value},{value}\n{value},1,1\n")
    (run / "bound.csv").write_text(f"t,term,term_stderr\n1.0,{value},0.1\n{value},0.5,1\n2.0,1,1\n")
    (run / "rate_distortion.csv").write_text(f"reverse_step,t,rate_bits_per_dim,rmse\n1,1,{value},{value}\n2,2,1,1\n")
    report.publish([workspace / "runs"], workspace)
    assert (workspace / "report.html").stat().st_size > 1000


def test_a_truth_value_is_no_number(tmp_path):
    (found,) = collect.within([write_run(tmp_path / "a", metrics={"fid": {"value": True}})])
    assert found.measured == {"fid": {}}
    assert "fid is True" in found.why


def test_thousands_of_columns_are_passed_over(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a")
    heading = ",".join(["step", *map(str, range(5000))])
    (run / "metrics.csv").write_text(heading + ("\n" + ",".join(["1"] * 5001)) * 50)
    read, reader = [], csv.reader
    monkeypatch.setattr(csv, "reader", lambda *a, **k: (read.append(row) or row for row in reader(*a, **k)))
    (found,) = collect.within([run])
    assert [len(row) for row in read] == [5001]  # the heading alone
    assert "metrics.csv has 5001 columns, more than any of ours" in found.why


def test_a_link_to_another_tree_is_not_followed(tmp_path):
    write_run(tmp_path / "elsewhere/a")
    write_run(tmp_path / "runs/b")
    (tmp_path / "runs/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs/latest").symlink_to("b")
    assert [run.folder.name for run in collect.within([tmp_path / "runs"])] == ["b"]
    assert [run.folder.name for run in collect.within([tmp_path / "runs/more"])] == ["a"]  # asked for by name


@pytest.mark.long
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(HALF)), content=st.binary(max_size=80), cut=st.integers(0, 400))
def test_no_content_crashes_the_reader(tmp_path, name, content, cut):
    run = tmp_path / "a"
    if not run.exists():
        write_run(run, metrics=measured(fid=1.0))
        (run / "bound.csv").write_text("t,term\n1,2\n")
        (run / "rate_distortion.csv").write_text("rate_bits_per_dim,rmse\n1,2\n")
    good = (run / name).read_bytes()
    try:
        (run / name).write_bytes(good[:cut] + content)
        (found,) = collect.within([run])
        assert "\n" not in found.why
    finally:
        (run / name).write_bytes(good)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metrics=JSON, protocol=JSON, choices=JSON, data=JSON, expected=JSON, codecs=JSON)
@pytest.mark.long
def test_no_tree_crashes_the_report(tmp_path, metrics, protocol, choices, data, expected, codecs):
    """Well-formed files whose content makes no sense."""
    run = tmp_path / "a"
    run.mkdir(exist_ok=True)
    (run / "results.json").write_text(json.dumps({"metrics": {"fid": metrics}, "protocol": protocol, "codecs": codecs}))
    config = {"choices": choices, "data": data, "expected": expected, "max_steps": data}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    report.publish([run], tmp_path)
    assert (tmp_path / "report.csv").read_text().count("\n") == 2
