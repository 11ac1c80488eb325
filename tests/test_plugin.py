"""What a user adds without a fork: groups from a folder or an installed package, and what is wrong with them."""

import shutil
import sys

import pytest
from commands import ROOT, Fork

from ddpm import build
from ddpm.commands.train import train
from ddpm.config import groups
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.runs import records

TEMPLATE = ROOT / "examples" / "plugin"
CONF = TEMPLATE / "my_diffusion" / "conf"
OWN = ["data=stripes", "data.count=200", "network=convolutions", "network.channels=8", "prediction=direction"]
SMOKE = ["debug=smoke", "logger=csv", "evaluation.metrics=[bits_per_dim]"]


def test_the_template_trains_sweeps_evaluates_and_reports(tmp_path):
    here = f"--config-dir={CONF}"
    sweep = ["-m", "seed=1,2", "evaluate_after=false"]
    Fork("train.py", *sweep, *OWN, *SMOKE, here, cwd=tmp_path).wait()
    cells = records.within(tmp_path / "runs/sweeps/latest")
    assert [cell.status for cell in cells] == ["finished", "finished"]
    assert "finished: 6 steps" in Fork("train.py", here, f"resume={cells[0].folder}", cwd=tmp_path).wait()
    printed = Fork("evaluate.py", f"ckpt={cells[0].folder}", here, cwd=tmp_path).wait()
    assert "bits/dim" in printed
    without = Fork("evaluate.py", f"ckpt={cells[0].folder}", cwd=tmp_path).wait(2)
    (line,) = without.strip().splitlines()
    assert line.startswith("error: ")
    assert "my_diffusion." in line
    assert "--config-dir" in line


def test_an_installed_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    shutil.copytree(TEMPLATE / "my_diffusion", tmp_path / "my_diffusion")
    registered = tmp_path / "my_diffusion-0.1.0.dist-info" / "entry_points.txt"
    registered.parent.mkdir()
    registered.write_text("[ddpm.plugins]\nmine = my_diffusion\n")
    (registered.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: my-diffusion\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    groups._roots.cache_clear()
    try:
        assert "stripes" in groups.options_of("data")
        config = compose(OWN)
        network = build.network(config, build.dataset(config))
        assert type(network).__module__ == "my_diffusion.network"
        registered.write_text("[ddpm.plugins]\nmine = my_diffusion\nother = nowhere_at_all\n")
        groups._roots.cache_clear()
        with pytest.raises(RequestError, match="plugin other registers nowhere_at_all, which is no package"):
            compose([])
    finally:
        groups._roots.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_diffusion"]:
            del sys.modules[name]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes an option, and the module beside its folder that it names, and returns the option's name."""
    monkeypatch.setenv(groups.OWN, str(tmp_path / "conf"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(group, code, conf=""):
        name = f"own_{group}_{abs(hash(code))}"
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").write_text(code)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(f"_target_: {name}.Mine\n{conf}")
        groups._roots.cache_clear()
        return name

    yield write
    groups._roots.cache_clear()


PREDICTION = "from ddpm.diffusion.prediction import Prediction\n"
VARIANCE = "from ddpm.diffusion.variance import Variance\n"
BREACHES = {
    ("prediction", PREDICTION + "class Mine(Prediction):\n    def target(self, q, x_0, noise, t): return noise"): (
        r"Mine does not keep the contract of ddpm\.diffusion\.prediction\.Prediction: no x_0"
    ),
    ("prediction", "class Mine: pass"): r"Mine is no ddpm\.diffusion\.prediction\.Prediction: derive it",
    ("variance", VARIANCE + "class Mine(Variance):\n    def log_var(self, q, raw, x_t, t, s): return t"): (
        r"contract of ddpm\.diffusion\.variance\.Variance: it states no learned"
    ),
    ("schedule", "def Mine(T=10): return [0.1] * T"): r"Mine gives a list, and must give a torch\.Tensor",
    ("network", "import torch\nclass Mine(torch.nn.Module): pass"): r"is no ddpm\.networks\.network\.Network",
    (
        "network",
        "from ddpm.networks.network import Network\nclass Mine(Network):\n    event_ndim = 3\n"
        "    def __init__(self, in_channels): super().__init__()\n    def forward(self, x, t): return x",
    ): r"must take in_channels, out_channels, and takes no out_channels",
    ("data", "from nowhere_at_all import x"): r"cannot be imported: ModuleNotFoundError: No module named 'nowhere_at",
    ("data", "x = 1"): r"Mine, which a file under conf/ names, cannot be imported: own_data_\d+ has no Mine",
}


@pytest.mark.parametrize("case", BREACHES, ids=[group for group, _ in BREACHES])
def test_a_class_that_does_not_keep_its_contract_is_told_which(own, case):
    group, code = case
    name = own(group, code, "T: 100\n" if group == "schedule" else "")

    def made():
        config = compose([f"{group}={name}"])
        build.reverse_process(config, build.dataset(config))

    with pytest.raises(ValueError, match=BREACHES[case]):
        made()


def test_a_name_that_two_have_is_refused(tmp_path, own, monkeypatch):
    own("data", "")
    (tmp_path / "conf/data/digits.yaml").write_text("_target_: own.Mine")
    groups._roots.cache_clear()
    with pytest.raises(
        RequestError, match=r"data=digits is both ddpm's and --config-dir=\S+'s: one needs another name"
    ):
        compose([])


def test_a_recipe_s_settings_of_another_class_are_dropped_and_a_user_s_are_not(own):
    code = (
        "import ddpm.networks.unet\nfrom ddpm.networks.network import Network\nclass Mine(Network):\n"
        "    event_ndim = 3\n    def __init__(self, in_channels, out_channels, width=3): super().__init__()\n"
        "    def forward(self, x, t): return x"
    )
    name = own("network", code, "width: 4\n")
    assert set(compose([f"network={name}", "network.width=5"]).network) == {"_target_", "width"}
    config = compose([f"network={name}", "+network.depth=5"])
    with pytest.raises(ValueError, match="Mine has no setting depth"):
        build.network(config, build.dataset(config))


def test_callbacks_of_a_user_s_own(tmp_path, own):
    code = (
        "from lightning.pytorch.callbacks import Callback\nclass Mine(Callback):\n"
        "    def __init__(self, file): self.file = file\n"
        "    def on_train_end(self, trainer, module): open(self.file, 'w').write(str(trainer.global_step))"
    )
    name = own("callbacks", code)
    file = tmp_path / "conf/callbacks" / f"{name}.yaml"
    file.write_text(f"# @package callbacks.mine\n{file.read_text()}file: {tmp_path}/done\n")
    config_dir = f"--config-dir={tmp_path / 'conf'}"
    Fork("train.py", "debug=smoke", "logger=csv", f"callbacks={name}", config_dir, cwd=tmp_path).wait()
    assert (tmp_path / "done").read_text() == "6"


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ("callbacks", "callbacks.NAME"),
        ("logger", "logger.NAME"),
        ("metric", "evaluation.NAME"),
        ("figure", "figure.NAME"),
    ],
)
def test_an_option_of_which_a_run_has_several_says_where_it_belongs(group, line, own):
    name = own(group, "class Mine: pass")
    with pytest.raises(RequestError, match=rf"an option of {group}/ must begin with # @package {line}"):
        compose(
            [f"{group}={name}"] if group in ("callbacks", "logger") else [],
            "evaluate" if group == "figure" else "train",
        )


@pytest.mark.parametrize(
    ("setting", "message"), [("note: 5", "note=5 is not a text"), ("unknown: 1", "no setting unknown")]
)
def test_a_callback_that_cannot_be_made_is_refused_before_anything_is_written(setting, message, own, workspace):
    code = (
        "from lightning.pytorch.callbacks import Callback\n"
        "class Mine(Callback):\n    def __init__(self, note: str = ''): pass"
    )
    name = own("callbacks", code, f"{setting}\n")
    file = groups.file_of("callbacks", name)
    file.write_text(f"# @package callbacks.mine\n{file.read_text()}")
    with pytest.raises(RequestError, match=message):
        train(["debug=smoke", "logger=csv", f"callbacks={name}"])
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(("setting", "value"), [("weights", [1.0, 2.0]), ("settings", 3)])
def test_a_class_may_take_settings_of_any_name(setting, value, own):
    code = PREDICTION + (
        "class Mine(Prediction):\n    symbol = 'y'\n"
        "    def __init__(self, **settings: int): self.settings = settings\n"
        "    def target(self, q, x_0, noise, t): return noise\n    def x_0(self, q, output, x_t, t): return output\n"
    )
    config = compose([f"prediction={own('prediction', code, f'{setting}: {value}')}"])
    assert build.reverse_process(config, build.dataset(config)).prediction.settings == {setting: value}


def test_annotations_for_type_checkers_alone_are_not_asked_for(own):
    code = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "from ddpm.diffusion.prediction import Prediction\nif TYPE_CHECKING: from collections.abc import Sequence\n"
        "class Mine(Prediction):\n    symbol = 'y'\n"
        "    def __init__(self, weights: Sequence[float]): self.weights = weights\n"
        "    def target(self, q, x_0, noise, t): return noise\n    def x_0(self, q, output, x_t, t): return output\n"
    )
    config = compose([f"prediction={own('prediction', code, 'weights: [1.0, 2.0]')}"])
    assert build.reverse_process(config, build.dataset(config)).prediction.weights == [1.0, 2.0]
