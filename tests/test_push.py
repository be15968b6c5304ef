"""A run on its way to the Hub: one commit, the same push twice, what people wrote, and what goes
wrong."""

import json
import re
import shutil
import threading

import pytest
from huggingface_hub import ModelCard

from ddpm import hub
from tests.helpers import REPORT, TINY, split
from tests.hub_server import OWNER, READ_TOKEN, TOKEN
from train.__main__ import main as train
from train.publish import card, push

REPO = f"{OWNER}/digits"
DIFFUSERS = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
}
OURS = {
    "config.json",
    "model.safetensors",
    "README.md",
    "samples.png",
    "samples.gif",
    "metrics.jsonl",
}


@pytest.fixture
def server(hub_server):
    """A Hub that this process talks to, logged in as its owner."""
    return hub_server


def told(capsys):
    """The last line of the error, or of the output if all went well."""
    out, err = capsys.readouterr()
    assert TOKEN not in out + err and "Traceback" not in err
    lines = [
        line
        for line in err.splitlines()
        if line.startswith(("push: ", "train: ")) and "%" not in line
    ]
    return (lines or out.splitlines())[-1]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_push_is_one_commit_with_all_that_others_need_and_the_run_stays_as_it_was(
    server, run, capsys
):
    before = contents(run)
    assert push.main([str(run), REPO, "--tag", "v1"]) == 0
    files = server.files(REPO)
    assert set(files) == {".gitattributes", *OURS, *DIFFUSERS}
    assert server.commits(REPO) == 1 and server.files(REPO, "v1") == files
    assert told(capsys) == f"{server.url}/{REPO}/commit/{server.repos[REPO]['branches']['main']}"
    for name in OURS - {"README.md"}:
        assert files[name] == (run / name).read_bytes()
    assert contents(run) == before
    assert not [name for name, content in files.items() if TOKEN.encode() in content]


def test_the_card_says_what_it_is_and_how_to_use_it(server, run):
    push.main([str(run), REPO])
    text = server.files(REPO)["README.md"].decode()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "mit",
        "pytorch",
        "unconditional-image-generation",
    )
    assert data.datasets == ["ylecun/mnist"] and {"ddpm", "diffusion", "mnist", "diffusers"} <= set(
        data.tags
    )
    assert (
        f'Pipeline.from_pretrained("{REPO}")' in text
        and f'DDPMPipeline.from_pretrained("{REPO}")' in text
    )
    assert (
        card.NOWHERE not in text
        and "![samples](samples.png)" in text
        and "--steps 12" in text
        and "## Limits" in text
    )


def test_what_was_measured_is_in_the_card(server, run, tmp_path, capsys):
    measured = shutil.copytree(run, tmp_path / "run")
    report = REPORT | {"weights_sha256": hub.load(run).config["sha256"]}
    (measured / "evaluation.json").write_text(json.dumps(report))
    before = (measured / "README.md").read_text()
    assert card.main([str(measured)]) == card.main([str(measured)]) == 0, (
        "a second time changes nothing"
    )
    after = (measured / "README.md").read_text()
    assert after.count("## Measured") == 1 and after.index("## Use") < after.index(
        "## Measured"
    ) < after.index("## How")
    assert "| Fréchet distance (classifier) | 2.031 ± 0.020 | 2.500 | 2.250 |" in after
    assert (
        "**1.25 ± 0.10 × real test images, by the worst judge" in after
        and "| 1.25 | 0.025 | 0.020 |" in after
    )
    assert (
        "10,000 images, 3 times (sampler ddim, 9 steps, each class as often as in training)"
        in after
    )
    assert re.sub("\n## Measured\n.*?\n(?=\n## )", "", after, flags=re.DOTALL) == before
    assert push.main([str(measured), REPO]) == 0
    (measured / "README.md").write_text(before)  # a push puts them there by itself
    capsys.readouterr()
    assert push.main([str(measured), REPO]) == 0 and "has all of this already" in told(capsys)
    text = server.files(REPO)["README.md"].decode()
    worst, result = ModelCard(text).data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == (
        "frechet",
        2.0312,
        "ylecun/mnist",
    )
    assert (worst.metric_type, worst.metric_value) == ("worst judge over its floor", 1.25)
    assert "python -m train.evaluate --model x" in text
    (measured / "evaluation.json").write_text("[]")
    assert push.main([str(measured), REPO]) == 2
    assert "not a report" in told(capsys) and server.commits(REPO) == 1
    (measured / "evaluation.json").write_text(json.dumps(report | {"weights_sha256": 64 * "0"}))
    assert card.main([str(measured)]) == push.main([str(measured), REPO]) == 2
    assert "other weights" in told(capsys) and server.commits(REPO) == 1


def test_a_card_without_the_markers_gets_them(server, run, tmp_path):
    old = shutil.copytree(run, tmp_path / "run")
    (old / "README.md").write_text("---\nlicense: mit\n---\n\n# Of older days\n")
    assert push.main([str(old), REPO]) == push.main([str(old), REPO]) == 0
    text = server.files(REPO)["README.md"].decode()
    assert (
        "# Of older days" in text
        and text.count(card.START) == 1
        and f'DDPMPipeline.from_pretrained("{REPO}")' in text
    )
    assert server.commits(REPO) == 1


def test_the_same_push_twice_makes_no_second_commit(server, run, capsys):
    push.main([str(run), REPO, "--tag", "v1"])
    uploaded = len(server.uploaded)
    assert push.main([str(run), REPO, "--tag", "v1"]) == 0
    assert "has all of this already" in told(capsys)
    assert server.commits(REPO) == 1 and len(server.uploaded) == uploaded


def test_what_people_wrote_into_the_card_stays(server, run, tmp_path):
    push.main([str(run), REPO])
    edited = (
        server.files(REPO)["README.md"]
        .decode()
        .replace("license: mit", "license: cc0-1.0")
        .replace("# A small diffusion model: mnist", "# My digits\n\nFor Grandma.")
        .replace("It knows nothing", "It knows little")
    )
    server.commit(REPO, {"README.md": edited.replace("--steps 12", "--steps 99").encode()})
    assert push.main([str(run), REPO]) == 0
    # only what is generated is as it was before
    assert server.files(REPO)["README.md"].decode() == edited
    server.commit(REPO, {"README.md": b"---\nlicense: mit\nmine: 1\n---\nAll mine.\n"})
    push.main([str(run), REPO])
    text = server.files(REPO)["README.md"].decode()
    assert "All mine.\n" in text and card.START in text and ModelCard(text).data["mine"] == 1
    server.commit(REPO, {"README.md": b"---\n: [\n---\nbroken\n"})
    assert push.main([str(run), REPO]) == 2


def test_an_edit_in_the_middle_of_a_push_is_not_lost(server, run, monkeypatch):
    push.main([str(run), REPO])
    config, whole = server.files(REPO)["config.json"], push.HfApi.create_commit
    server.commit(REPO, {"config.json": b"{}"})

    def late(*args, **settings):
        monkeypatch.setattr(push.HfApi, "create_commit", whole)
        server.commit(REPO, {"README.md": server.files(REPO)["README.md"] + b"\nA late word.\n"})
        return whole(*args, **settings)

    monkeypatch.setattr(push.HfApi, "create_commit", late)
    assert push.main([str(run), REPO]) == 0
    assert (
        b"A late word." in server.files(REPO)["README.md"]
        and server.files(REPO)["config.json"] == config
    )


def test_a_branch_and_a_private_repo(server, run, capsys):
    assert push.main([str(run), REPO, "--private", "--revision", "trial"]) == 0
    assert server.repos[REPO]["private"] and "config.json" not in server.files(REPO)
    assert "config.json" in server.files(REPO, "trial")


def test_a_tag_that_is_taken_is_not_moved(server, run, capsys):
    push.main([str(run), REPO, "--tag", "v1"])
    server.commit(REPO, {"config.json": b"{}"})
    before = server.repos[REPO]["tags"].copy()
    assert push.main([str(run), REPO, "--tag", "v1"]) == 2
    assert "has a tag v1 already" in told(capsys)
    assert server.repos[REPO]["tags"] == before and server.files(REPO)["config.json"] == b"{}"


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        (None, REPO, "hf auth login"),
        (READ_TOKEN, REPO, "may not write"),
        (TOKEN, "bob/digits", "a repo of your own"),
        ("hf_unknown", REPO, "does not know this token"),
        (TOKEN, "digits", "NAMESPACE/NAME"),
        (TOKEN, f"{OWNER}/a--b", "--"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_who_may_not_is_told_what_to_do(
    server, run, monkeypatch, capsys, token, repo, words, exists
):
    if exists:
        server.create(repo)
    before = contents(run)
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    assert push.main([str(run), repo]) == 2
    line = told(capsys)
    assert words in line and "hf_" not in line
    assert contents(run) == before and (not exists or server.commits(repo) == 0)


@pytest.mark.parametrize(
    ("method", "part", "how"),
    [
        ("POST", "/api/repos/create", {"status": 500}),
        ("POST", "/commit/", {"status": 503}),
        ("POST", "/commit/", {"drop": True}),
        ("PUT", "/objects/", {"drop": True}),
        ("PUT", "/objects/", {"status": 500}),
        ("GET", "/api/models/", {"cut": True}),
        ("POST", "/preupload/", {"status": 429, "headers": {"Retry-After": "7"}}),
    ],
)
def test_what_passes_is_tried_again_and_goes_on_where_it_was(server, run, method, part, how):
    server.fail(method, part, **how)
    assert push.main([str(run), REPO]) == 0
    assert server.commits(REPO) == 1
    assert len(server.uploaded) == len(set(server.uploaded)) == 4  # nothing was sent twice
    assert server.waited


def test_a_busy_hub_says_how_long_to_wait(server, run):
    server.fail("POST", "/commit/", status=429, headers={"Retry-After": "7"})
    assert push.main([str(run), REPO]) == 0
    assert 7 in server.waited


def test_an_answer_that_was_lost_makes_no_second_commit(server, run):
    server.fail("POST", "/commit/", cut=True)
    assert push.main([str(run), REPO]) == 0
    assert server.commits(REPO) == 1


def test_a_connection_lost_for_good_is_one_line_and_the_next_push_goes_on(server, run, capsys):
    before = contents(run)
    server.fail("POST", "/commit/", times=99, drop=True)
    assert push.main([str(run), REPO]) == 2
    assert "broke off" in told(capsys) and server.commits(REPO) == 0 and contents(run) == before
    server.failures.clear()
    sent = len(server.uploaded)
    assert push.main([str(run), REPO]) == 0
    assert server.commits(REPO) == 1 and len(server.uploaded) == sent


def test_what_nobody_could_pull_is_not_pushed(server, run, tmp_path, capsys):
    spoiled = shutil.copytree(run, tmp_path / "run")
    data = bytearray((run / hub.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (spoiled / hub.WEIGHTS).write_bytes(data)
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (spoiled, "sha256 differs"),
        (tmp_path / "empty", "not finished"),
        (tmp_path / "none", "not a folder"),
    ):
        assert push.main([str(folder), REPO]) == 2
        assert words in told(capsys)
    assert server.asked == []


@pytest.mark.slow
def test_training_pushes_at_the_end_and_on_the_way(server, tmp_path, monkeypatch, capsys):
    finish = push.Background.start
    # one a step
    monkeypatch.setattr(
        push.Background, "start", lambda self, make: (finish(self, make), self.finish())
    )
    out = tmp_path / "run"
    options = split("--out", out, "--steps 3 --push", REPO, "--push-every 0.000001")
    assert train([*TINY, *options]) == 0
    assert told(capsys)
    assert server.commits(REPO) == 4
    assert hub.load(out).config["sha256"] == json.loads(server.files(REPO)["config.json"])["sha256"]
    assert set(server.files(REPO)) == {".gitattributes", *OURS, *DIFFUSERS}
    assert not [path for path, content in contents(out).items() if TOKEN.encode() in content]


def test_a_push_that_fails_on_the_way_does_not_stop_training(server, tmp_path, capsys):
    server.fail("GET", f"/api/models/{REPO}", times=1, status=403)
    options = split("--out", tmp_path / "run", "--steps 3 --push", REPO, "--push-every 0.000001")
    assert train([*TINY, *options]) == 0
    assert "training goes on" in capsys.readouterr().err
    assert server.commits(REPO) >= 1


def test_training_does_not_begin_if_it_could_not_push_and_is_not_lost_if_the_end_cannot(
    server, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    assert train([*TINY, "--out", str(out), "--steps", "1", "--push", "bob/digits"]) == 2
    assert "may not write" in told(capsys) and not out.exists()
    assert train([*TINY, "--out", str(out), "--steps", "1", "--push-every", "1"]) == 2
    server.fail("POST", "/commit/", times=99, status=500)
    assert train([*TINY, "--out", str(out), "--steps", "1", "--push", REPO]) == 2
    assert f"python -m train.publish.push {out} {REPO}" in told(capsys)
    assert hub.load(out)


def test_the_loop_does_not_wait_for_a_push(monkeypatch):
    monkeypatch.setattr(push, "push", lambda files, repo, show: push.Pushed("url", True))
    pusher, go = push.Background(REPO, 1), threading.Event()
    assert not pusher.due()
    pusher.last = -1e9
    assert pusher.due()
    pusher.start(lambda: go.wait(30) and {})  # comes back while the push waits
    pusher.last = -1e9
    assert not pusher.due()  # one at a time
    go.set()
    pusher.finish()
    assert pusher.due()
    assert not push.Background(REPO, None).due()
