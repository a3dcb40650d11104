"""The page as a Space: three small files in one commit, repeatable, all or nothing."""

import ast

import pytest
import yaml
from hubserver import OTHER, OWNER, READER

from zoo.cli import main
from zoo.errors import ConfigError, HubError
from zoo.hub.space import app, push_space


def commits(hub) -> list[str]:
    return [s.path for s in hub.log if s.method == "POST" and "/commit/" in s.path]


def test_the_app_is_three_lines_that_start_the_page():
    files = app("image/*,hub:me/mine")
    text = files["app.py"].decode()
    assert len(text.splitlines()) == 3
    call = ast.parse(text).body[1].value
    assert call.func.id == "launch" and call.args[0].value == "image/*,hub:me/mine"
    assert {k.arg: k.value.value for k in call.keywords} == {"host": "0.0.0.0", "port": 7860}
    about = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert about["sdk"] == "gradio" and about["app_file"] == "app.py" and about["models"] == ["me/mine"]
    assert files["requirements.txt"].decode().startswith("diffusion-zoo[demo,")


def test_a_name_that_is_code_stays_a_text():
    text = app('*", host="x"); import os; ("')["app.py"].decode()
    assert ast.parse(text).body[1].value.args[0].value == '*", host="x"); import os; ("'


def test_a_folder_is_not_on_the_spaces_machine():
    with pytest.raises(ConfigError, match="zoo push"):
        app("image/*,./runs/mine")


def test_one_commit_and_again_none(hub):
    pushed = push_space("me/page", token=OWNER)
    repo = hub.repos["space", "me/page"]
    assert {k: v for k, v in repo.files.items() if k != ".gitattributes"} == app()
    assert len(commits(hub)) == 1 and set(pushed.changed) == set(app()) and "spaces/me/page" in str(pushed)
    assert push_space("me/page", token=OWNER).changed == ()
    assert len(commits(hub)) == 1
    assert push_space("me/page", "image/*", token=OWNER).changed == ("app.py",)
    assert hub.repos["space", "me/page"].files["app.py"] == app("image/*")["app.py"]


def test_files_of_the_owner_stay(hub):
    hub.add("me/page", {"notes.md": b"mine", "app.py": b"old"}, kind="space")
    push_space("me/page", token=OWNER)
    assert hub.repos["space", "me/page"].files == {"notes.md": b"mine", **app()}


@pytest.mark.parametrize("kind", ["status", "drop", "lost"])
def test_after_a_fault_it_is_whole_or_as_before(hub, kind):
    hub.add("me/page", {"app.py": b"old"}, kind="space")
    hub.fault("/commit/", kind, method="POST", status=503)
    push_space("me/page", token=OWNER)
    assert hub.repos["space", "me/page"].files == app()


def test_a_refused_commit_changes_nothing(hub):
    hub.add("me/page", {"app.py": b"old"}, kind="space")
    hub.fault("/commit/", "status", method="POST", status=403, times=99)
    with pytest.raises(HubError, match="space me/page"):
        push_space("me/page", token=OWNER)
    assert hub.repos["space", "me/page"].files == {"app.py": b"old"}


@pytest.mark.parametrize("token", [READER, OTHER])
def test_without_the_right_nothing_is_made(hub, token):
    with pytest.raises(HubError):
        push_space("me/page", token=token)
    assert ("space", "me/page") not in hub.repos


def test_a_public_space_is_not_taken_for_a_private_one(hub):
    hub.add("me/page", {}, kind="space")
    with pytest.raises(HubError, match="private was asked for"):
        push_space("me/page", private=True, token=OWNER)


def test_the_command(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", OWNER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    assert main(["publish", "--space", "me/page", "--pattern", "image/*"]) == 0
    assert "spaces/me/page: 3 files changed" in capsys.readouterr().out
    assert main(["publish", "--space", "me/page", "--namespace", "me"]) == 2
