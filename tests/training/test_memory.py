"""A run may begin to save memory, and its weights stay the same to the bit."""

import shutil

import torch

from ddpm.commands.train import train


def test_a_run_that_goes_on_with_less_memory_is_the_same_run(run_folder, capsys):
    shutil.copytree(run_folder, "plain")
    for name, more in (("plain", []), ("run", ["network.checkpointing=true"])):
        train([f"resume={name}", "max_steps=8", *more])
    assert "network.checkpointing=True (was False)" in capsys.readouterr().out
    plain, other = (
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("plain", "run")
    )
    assert plain.keys() == other.keys()
    for key, value in plain.items():
        assert torch.equal(other[key], value), key
