"""What is pushed arrives as it was exported, by the Hub's own library, at a Hub of this machine."""

import socket
import sys

import pytest
from fake_hub import serving
from random_checkpoint import saved

from ddpm.commands.export import export
from ddpm.config.errors import RequestError
from ddpm.config.grammar import quote_paths
from ddpm.processes import RunFailedError

SMALL = ["recipe=digits", "network.channels=8", "network.groups=4"]


@pytest.fixture
def hub(workspace, monkeypatch):
    saved("run.ckpt", *SMALL)
    with serving(monkeypatch) as found:
        yield found


def push(*words):
    export(quote_paths(["ckpt=run.ckpt", "to=out", *words]))


def test_the_folder_becomes_a_model(hub, workspace, capsys):
    push("push=hf://me/digits")
    there = {
        path.relative_to(workspace / "out").as_posix(): path.read_bytes()
        for path in (workspace / "out").rglob("*")
        if path.is_file()
    }
    assert hub.models == {"me/digits": there}
    assert {"README.md", "model_index.json", "unet/config.json"} < there.keys()
    assert hub.private == set()
    assert capsys.readouterr().out.splitlines()[-1] == f"pushed by me: {hub.address}/me/digits"


def test_a_private_model_of_an_organization(hub):
    push("push=hf://lab/digits", "private=true", "format=safetensors")
    assert hub.models.keys() == hub.private == {"lab/digits"}
    assert hub.models["lab/digits"].keys() == {"README.md", "model.safetensors"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push=me/digits"], "me/digits is not of the form hf://OWNER/NAME"),
        (["push=hf://digits"], "is not of the form"),
        (["push=hf://me/digits@v1"], "leave @v1 away"),
        (["push=hf://me/a b"], "push=hf://me/a b is not possible: "),
        (["push=hf://me/digits", "private=perhaps"], "private=perhaps must be true or false"),
        (["private=true"], "private= is for push="),
        (["push=hf://me/digits", "format=onnx"], "format=onnx is not one of"),
    ],
)
def test_a_wrong_request_writes_nothing_here_or_there(hub, workspace, words, message):
    with pytest.raises(RequestError) as refusal:
        push(*words)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (workspace / "out").exists()
    assert not [request for request in hub.asked if request.startswith("POST")]


def test_a_token_that_the_hub_does_not_know(hub, workspace, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(RequestError, match=r"is not possible: .*a token that may write") as refusal:
        push("push=hf://me/digits")
    assert "hf_another" not in str(refusal.value)
    assert not (workspace / "out").exists()


def test_without_a_network_it_is_one_line(hub, workspace, monkeypatch):
    import huggingface_hub.constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
    with pytest.raises(RequestError, match=r"push=hf://me/digits is not possible: .*it needs a network") as refusal:
        push("push=hf://me/digits")
    assert "\n" not in str(refusal.value)
    assert not (workspace / "out").exists()


def test_without_the_library_it_says_how_to_install_it(hub, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RequestError, match="push=hf://me/digits needs an extra dependency: pip install"):
        push("push=hf://me/digits")
    assert not (workspace / "out").exists()


def test_what_the_hub_refuses_is_kept_here(hub, workspace):
    hub.full = True
    with pytest.raises(RunFailedError, match=f"hf upload me/digits {workspace}/out"):
        push("push=hf://me/digits")
    assert (workspace / "out" / "model_index.json").is_file()
    assert hub.models == {"me/digits": {}}
