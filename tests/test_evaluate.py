"""Evaluation: the mathematics against other ways to the same figure, and the commands from images
to table."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import linalg

from ddpm import Pipeline, hub
from tests.helpers import DIGITS, split, tiny_unet
from train.data import Data
from train.evaluate import __main__ as evaluate
from train.evaluate import (
    classifier,
    folder,
    judge,
    members,
    metrics,
    panel,
    pixel_stats,
    plot,
    reference,
    sweep,
    trial,
    two_sample,
)
from train.evaluate.damages import DAMAGES
from train.evaluate.figures import FIGURES
from train.evaluate.metrics import Statistics
from train.evaluate.panel import JUDGES
from train.evaluate.yardstick import Sample, Yardstick


@pytest.fixture
def options(referee):
    """What every evaluation here is told."""
    return ["--data", str(DIGITS), "--judge", str(referee), "--device", "cpu"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def yardstick(referee):
    return Yardstick.open(referee, DIGITS, torch.device("cpu"))


def error_of(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return lines[-1].split("\r")[-1]


def figures(path):
    return json.loads(path.read_text())["figures"]


# --- The mathematics ------------------------------------------------------------------------------


def test_the_frechet_distance_is_the_one_with_a_matrix_root(rng):
    a, b = rng.normal(size=(500, 20)) @ rng.normal(size=(20, 20)), rng.normal(size=(300, 20)) ** 2
    (m, A), (n, B) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    expected = ((m - n) ** 2).sum() + np.trace(A + B - 2 * linalg.sqrtm(A @ B).real)
    assert metrics.frechet(*(Statistics.of(torch.from_numpy(x)) for x in (a, b))) == pytest.approx(
        expected, rel=1e-6
    )


def test_the_frechet_distance_of_gaussians_that_share_their_axes_is_the_closed_form():
    """There |mean_a - mean_b|² + |std_a - std_b|², also where a direction has no spread at all."""
    a, b = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([3.0, 0.5, 0.0]).double()
    axes = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    one = Statistics(torch.zeros(3).double(), axes * a.square() @ axes.T, 9)
    two = Statistics(torch.ones(3).double(), axes * b.square() @ axes.T, 9)
    # Eigenvalues are exact to some rounding errors of the largest, 9 (about 2e-15 each), and so is
    # their sum.
    assert metrics.frechet(one, two) == pytest.approx(3 + 2**2 + 1.5**2, rel=1e-12)


@pytest.mark.parametrize("noise", [-1e-16, 0.0, 1e-16])
def test_a_direction_without_spread_costs_nothing_whichever_way_it_is_rounded(noise):
    """The root of 1e-16 is 1e-8: an eigenvalue that is only rounding must not come back as a
    distance."""
    flat = Statistics(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, noise]).double()), 9)
    wide = Statistics(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 4.0]).double()), 9)
    assert metrics.frechet(flat, wide) == pytest.approx(4, rel=1e-12)  # 1e-8 of it would be wrong


def test_the_same_vectors_in_another_order_are_at_no_distance(rng):
    features = torch.from_numpy(rng.normal(size=(400, 30))).float()
    assert metrics.frechet(Statistics.of(features), Statistics.of(features.flip(0))) < 1e-9


def test_precision_and_recall_are_1_for_the_same_set_and_0_for_sets_far_apart(rng):
    a = torch.from_numpy(rng.normal(size=(200, 8))).float()
    assert metrics.precision_recall(a, a.flip(0)) == (1, 1)
    assert metrics.precision_recall(a, a + 100) == (0, 0)
    assert metrics.density_coverage(a, a + 100) == (0, 0)


def test_precision_falls_with_stray_images_and_recall_with_missing_ones(rng):
    a = torch.from_numpy(rng.normal(size=(100, 4))).float()
    stray = torch.cat([a[:75], a[75:] + 100])
    assert metrics.precision_recall(a, stray)[0] == 0.75
    two = torch.cat([a[:50], a[50:] + 100])
    assert metrics.precision_recall(two, torch.cat([a[:50], a[:50] + 1e-3]))[1] <= 0.5


def test_density_and_coverage_are_those_counted_by_hand():
    """On a line with k = 2. Radii of 0, 1, 2, 10: 2, 1, 2, 9. 0.5 lies in the balls of 0, 1, 2 and
    9.0 in that of 10; -1.5 in that of 0 only: 5 balls, all four of which hold a drawn point."""
    real, drawn = torch.tensor([[0.0], [1], [2], [10]]), torch.tensor([[0.5], [9.0], [-1.5]])
    assert metrics.density_coverage(real, drawn, k=2) == (pytest.approx(5 / (2 * 3)), 1.0)
    assert metrics.density_coverage(real, drawn[1:2], k=2) == (0.5, 0.25)


def test_chunks_change_nothing(rng, monkeypatch):
    a, b = (torch.from_numpy(rng.normal(size=(90, 5))).float() for _ in range(2))
    whole = metrics.precision_recall(a, b), metrics.density_coverage(a, b), metrics.nearest(a, b)
    monkeypatch.setattr(metrics, "_CHUNK", 7 * 90)
    assert metrics.precision_recall(a, b) == whole[0] and metrics.density_coverage(a, b) == whole[1]
    torch.testing.assert_close(metrics.nearest(a, b), whole[2])


def test_nearest_finds_the_nearest_and_can_leave_itself_out(rng):
    a, b = (torch.from_numpy(rng.normal(size=(n, 6))) for n in (20, 30))
    torch.testing.assert_close(metrics.nearest(a, b), torch.cdist(a, b).amin(1))
    others = torch.cdist(b[:5], b).fill_diagonal_(torch.inf)
    torch.testing.assert_close(metrics.nearest(b[:5], b, skip=torch.arange(5)), others.amin(1))


# --- The judge and the real images ----------------------------------------------------------------


def test_a_judge_is_read_as_it_was_written(referee):
    (found, texture), config = folder.load(referee)
    assert {path.name for path in referee.iterdir()} == {
        hub.CONFIG,
        hub.WEIGHTS,
        folder.TEXTURE,
        folder.REFERENCE,
    }
    assert (
        config["class_names"] == list("0123456789")
        and "train.evaluate.judge --data" in config["command"]
    )
    train, test = reference.real_images("mnist", DIGITS)
    assert (len(train.images), len(test.images)) == (400, 100)
    seen = found.look(test.images)
    assert seen.features.shape == (100, classifier.FEATURES)
    assert (seen.probabilities.argmax(1) == test.labels).double().mean().item() == config[
        "accuracy"
    ]
    kept = Yardstick.open(referee, DIGITS, torch.device("cpu")).reference
    for name, vectors in (
        ("features", found.look(train.images).features),
        ("texture", texture.look(train.images)),
        ("pixels", pixel_stats.vectors(train.images)),
    ):
        gaussian = kept.gaussians[name]
        assert gaussian.number == 400
        torch.testing.assert_close(gaussian.mean, vectors.double().mean(0))
        torch.testing.assert_close(gaussian.covariance, vectors.double().T.cov())
    assert not set(reference.subset(train).tolist()) & set(reference.neighbours(train).tolist())


def test_the_shipped_judge_reads_digits_it_has_not_seen():
    """Digits from the test set, in tests/data: the judge never saw them."""
    (found, _), config = folder.load(folder.BUILT_IN / "mnist")
    folder.read_reference(folder.BUILT_IN / "mnist", config)
    assert set(config["floors"]) == set(map(str, panel.COUNTS))
    assert all(floor["figure"].keys() == JUDGES.keys() for floor in config["floors"].values())
    _, test = reference.real_images("mnist", DIGITS)
    guesses = found.look(test.images).probabilities.argmax(1)
    assert config["accuracy"] >= 0.995 and (guesses == test.labels).double().mean() >= 0.99
    assert sum(path.stat().st_size for path in (folder.BUILT_IN / "mnist").iterdir()) < 3e6


def test_own_images_are_judged_too_and_every_tenth_is_held_out(tmp_path, capsys):
    for name, value in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(40):
            Image.new("RGB", (16, 16), (value, value + k, value)).save(
                tmp_path / "data" / name / f"{k:02}.png"
            )
    own = ["--dataset", "folder", "--data", str(tmp_path / "data")]
    small = split("--size 16 --out", tmp_path / "judge", "--epochs 3 --steps 9")
    assert judge.main([*own, *small]) == 0
    assert "of 8 test images" in capsys.readouterr().out
    model = tiny_unet(channels=3, size=16, classes=2)
    (tmp_path / "model").mkdir()
    for name, content in hub.files(model, dataset="folder").items():
        (tmp_path / "model" / name).write_bytes(content)
    out = tmp_path / "figures.json"
    judged = split(tmp_path / "model", "--data", tmp_path / "data", "--judge", tmp_path / "judge")
    assert evaluate.main(judged + split("--samples 10 --seeds 1 --steps 2 --out", out)) == 0
    assert figures(out)["frechet"]["std"] is None


# --- The panel ------------------------------------------------------------------------------------


def test_the_auc_is_the_share_of_pairs_in_the_right_order(rng):
    a, b = (torch.from_numpy(rng.integers(0, 6, n)).float() for n in (40, 30))
    pairs = (a[:, None] > b).double() + 0.5 * (a[:, None] == b).double()
    assert two_sample.rank_auc(a, b) == pytest.approx(pairs.mean().item())
    assert two_sample.rank_auc(a + 9, b) == 1 and two_sample.rank_auc(a, a) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_two_sample_test_guesses_at_images_of_one_kind_and_finds_one_gray_level_of_grain():
    """Halves of one set: an AUC of 0.5, within 4 standard errors of 100 versus 100 (0.041 each)."""
    images = reference.real_images("mnist", DIGITS)[0].images
    a, b = images[0::2], images[1::2]
    assert abs(two_sample.auc(a, b) - 0.5) < 4 * 0.041
    generator = torch.Generator().manual_seed(0)
    assert two_sample.auc(DAMAGES["grain"].apply(unlabelled(a), 200, 1, None, generator), b) > 0.8


def unlabelled(images):
    return Data(images, torch.zeros(len(images), dtype=torch.long), ())


def test_statistics_of_pixels_are_those_counted_by_hand():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[0, 0, 2, 4:6] = 255
    image[0, 0, 3, 4] = 5
    found = pixel_stats.vectors(image)[0]
    assert len(found) == pixel_stats.length(1)
    # 0, 1.., 3.., …, white
    assert found[:9].tolist() == pytest.approx([61 / 64, 0, 1 / 64, 0, 0, 0, 0, 0, 2 / 64])
    assert pixel_stats.vectors(torch.zeros(2, 3, 9, 9, dtype=torch.uint8)).isfinite().all()


def test_of_test_images_the_share_that_is_odd_is_the_floor(yardstick):
    for sample in yardstick.tests(100):
        assert members.shares(sample) == pytest.approx(
            dict.fromkeys(members.WAYS, members.ODD), abs=0.011
        )


def test_repeats_copies_and_garbage_are_odd_each_in_its_way(yardstick):
    data, train = yardstick.test, yardstick.train
    for damage, way in (("repeated", "twin"), ("copied", "near"), ("garbage", "far")):
        images = trial.damaged(damage, data, 100, 0.5, train)
        # of 100 images some are at the limit, and rounding decides
        assert members.shares(Sample(yardstick, images))[way] > 2 * members.ODD, damage


def test_the_worst_judge_is_the_one_farthest_above_its_floor():
    real = panel.Floor(dict.fromkeys(JUDGES, 2.0), dict.fromkeys(JUDGES, 0.5), {})
    assert panel.worst(dict.fromkeys(JUDGES, 1.0) | {"pixels": 6.0}, real) == ("pixels", 3.0, 0.25)
    report = panel.report(
        [dict.fromkeys(JUDGES, 2.0), dict.fromkeys(JUDGES, 2.0) | {"texture": 6.0}], real
    )
    assert report["worst"]["judge"] == "texture" and report["worst"]["ratio"] == 2
    assert (
        report["panel"]["texture"]["spread"] == pytest.approx(2**0.5)
        and report["panel"]["pixels"]["spread"] == 0
    )


def test_a_floor_that_is_kept_is_not_measured_again(yardstick, monkeypatch):
    kept = {
        "figure": dict.fromkeys(JUDGES, 3.0),
        "spread": dict.fromkeys(JUDGES, 1.0),
        "limits": {},
    }
    monkeypatch.setitem(yardstick.config, "floors", {"50": kept})
    assert panel.floor(yardstick, 50) == panel.Floor(**kept)
    monkeypatch.setitem(kept, "figure", {"features": 3.0})
    assert panel.floor(yardstick, 50).figure.keys() == JUDGES.keys(), (
        "floors of other judges than there are now"
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_gives_as_many_images_and_more_of_it_changes_more(name, yardstick):
    data, train = yardstick.test, yardstick.train
    plain = data.images[:60]
    found = [trial.damaged(name, data, 60, strength, train) for strength in DAMAGES[name].strengths]
    assert all(images.shape == plain.shape and images.dtype == torch.uint8 for images in found)
    changed = [(images.float() - plain.float()).abs().mean().item() for images in found]
    assert (changed[0] > 0 and changed == sorted(changed)) or name == "missing"
    assert DAMAGES[name].visible in DAMAGES[name].strengths


def test_a_missing_class_is_missing(yardstick):
    data = yardstick.test
    left = trial.damaged(
        "missing",
        Data(data.labels.byte().view(-1, 1, 1, 1), data.labels, data.classes),
        100,
        2,
        None,
    )
    assert set(left.flatten().tolist()) == set(range(2, 10))


def test_every_damage_is_seen_where_it_is_strong(referee, tmp_path, capsys, monkeypatch):
    """A small version of the trial: judges made in seconds, 40 images, the strongest of each
    damage. The whole of it: python -m train.evaluate.trial."""
    monkeypatch.setattr(
        trial,
        "DAMAGES",
        {
            name: damage._replace(strengths=damage.strengths[-1:])
            for name, damage in DAMAGES.items()
        },
    )
    out = tmp_path / "trial.json"
    options = split("--data", DIGITS, "--judge", referee, "--samples 40 --out", out)
    code = trial.main([*options, "--picture", str(tmp_path / "damages.png")])
    assert code in (0, 1) and "worst" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert len(found) == 1 + len(DAMAGES) and found[0]["damage"] is None
    strongest = {each["damage"]: each["worst"] for each in found[1:]}
    assert all(strongest[name] > trial.LIMIT for name in SEEN_BY_FEW), strongest
    with Image.open(tmp_path / "damages.png") as picture:
        assert picture.width > 600


# 40 images show no rare ones
SEEN_BY_FEW = ("grain", "haze", "blur", "shift", "contrast", "thicker", "repeated")


# --- From images to figures -----------------------------------------------------------------------


def test_a_model_is_measured_beside_real_images(run, options, tmp_path, capsys):
    out = tmp_path / "figures.json"
    few = split("--samples 100 --seeds 2 --steps 2 --out", out)
    assert evaluate.main([str(run), *options, *few]) == 0
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert list(report["figures"]) == list(FIGURES) and list(report["panel"]) == list(JUDGES)
    for name, said in report["panel"].items():
        assert (
            said["ratio"] == pytest.approx(said["figure"] / said["floor"])
            and JUDGES[name].title in printed
        )
    assert report["worst"]["ratio"] == max(said["ratio"] for said in report["panel"].values()) > 1
    for name, figure in report["figures"].items():
        assert len(figure["values"]) == 2 and figure["mean"] == pytest.approx(
            sum(figure["values"]) / 2
        )
        assert FIGURES[name].title in printed
    assert report["figures"]["frechet"]["floor"] < report["figures"]["frechet"]["mean"]
    assert (
        report["figures"]["copies"]["floor"] == 0.01 and report["figures"]["copies"]["subset"] < 0.1
    )
    assert report["weights_sha256"] == json.loads((run / hub.CONFIG).read_text())["sha256"]
    assert report["settings"]["grid"] and "train.evaluate" in report["command"] and report["torch"]


def test_two_processes_give_the_figures_of_one(run, options, tmp_path):
    common = [str(run), *options, *split("--samples 150 --seeds 1 --steps 2 --guidance 1 --out")]
    assert evaluate.main([*common, str(tmp_path / "one")]) == 0
    done = subprocess.run(
        [
            sys.executable,
            *split("-m torch.distributed.run --standalone --nproc-per-node 2 -m train.evaluate"),
            *common,
            str(tmp_path / "two"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    one, two = (json.loads((tmp_path / name).read_text())["panel"] for name in ("one", "two"))
    # what is trained depends on the number of threads, in its last bits
    for name in JUDGES.keys() - {"two-sample"}:
        assert one[name]["values"] == two[name]["values"]
    assert "torchrun --nproc-per-node=2" in (tmp_path / "two").read_text()


def test_a_folder_of_pngs_gives_the_figures_of_the_model_that_drew_them(run, options, tmp_path):
    Pipeline.from_pretrained(run).sample(seeds=range(60), steps=2, labels=10).save(
        tmp_path / "pngs"
    )
    picture = tmp_path / "beside.png"
    files = split("--out", tmp_path / "pngs.json", "--picture", picture)
    assert evaluate.main([str(tmp_path / "pngs"), *options, *files]) == 0
    with Image.open(picture) as shown:  # real, ours, and both eight times as bright
        rows = [
            np.array(shown.convert("L").crop((0, top, shown.width, top + 56))).astype(int)
            for top in (0, 64, 128, 192)
        ]
    first = np.array(Image.open(min((tmp_path / "pngs").iterdir()))).repeat(2, 0).repeat(2, 1)
    assert (rows[1][:, :56] == first).all()
    assert all(
        (bright == (row * 8).clip(max=255)).all()
        for row, bright in zip(rows[:2], rows[2:], strict=True)
    )
    few = split("--samples 60 --seeds 1 --steps 2 --unlabelled --out", tmp_path / "model.json")
    assert evaluate.main([str(run), *options, *few]) == 0
    assert figures(tmp_path / "pngs.json") == figures(tmp_path / "model.json")


def test_copies_of_training_images_are_found(options, tmp_path):
    train, _ = reference.real_images("mnist", DIGITS)
    (tmp_path / "pngs").mkdir()
    for k, image in enumerate(train.images[:50, 0]):
        Image.fromarray(image.numpy()).convert("RGB" if k % 2 else "L").save(
            tmp_path / "pngs" / f"{k}.png"
        )
    assert (
        evaluate.main([str(tmp_path / "pngs"), *options, "--out", str(tmp_path / "out.json")]) == 0
    )
    assert figures(tmp_path / "out.json")["copies"]["mean"] == 1


# --- Sweeps ---------------------------------------------------------------------------------------

SWEEP = split("--sweep --samples 20 --samplers ddim heun --evaluations 2 5 --grids uniform power")


def test_a_sweep_is_taken_up_where_it_stopped(run, options, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sweep.jsonl"
    assert evaluate.main([str(run), *options, *SWEEP, "--out", str(out)]) == 0
    printed, lines = capsys.readouterr().out, out.read_text().splitlines()
    assert len(lines) == 8
    for line in map(json.loads, lines):
        assert line["ratio"] == max(line["panel"].values()) == line["panel"][line["judge"]]
        assert list(line["panel"]) == list(JUDGES)
    assert {(cell["sampler"], cell["steps"], cell["cost"]) for cell in map(json.loads, lines)} == {
        ("ddim", 2, 2),
        ("ddim", 5, 5),
        ("heun", 1, 1),
        ("heun", 3, 5),
    }
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # what a power cut may leave
    drawn = []
    monkeypatch.setattr(
        sweep,
        "draw",
        lambda *args, real=sweep.draw, **settings: drawn.append(1) or real(*args, **settings),
    )
    for expected in (1, 1):  # the lost cell once more, then none
        assert evaluate.main([str(run), *options, *SWEEP, "--out", str(out)]) == 0
        assert len(drawn) == expected and capsys.readouterr().out == printed
    # cells that are there, all else being equal
    two = [*SWEEP, "--samplers", "ddim", "--grids", "power", "--out", str(out)]
    assert evaluate.main([str(run), *options, *two, "--samples", "21"]) == 0
    assert len(drawn) == 3, "figures of other numbers of images are not those"
    assert evaluate.main([str(run), *options, *two, "--unlabelled"]) == 0
    assert len(drawn) == 5, "figures of images without labels are not those"
    other = shutil.copytree(run, tmp_path / "other")
    (other / "config.json").unlink()
    for name, content in hub.files(tiny_unet(size=28), dataset="mnist").items():
        (other / name).write_bytes(content)
    assert evaluate.main([str(other), *options, *two]) == 0
    assert len(drawn) == 7 and len(sweep.read(out)) == 14, "figures of other weights are not those"


def test_the_best_grid_is_marked_by_column_and_over_all():
    cells = {
        sweep.Cell("ddim", grid, wanted, wanted, wanted): figure
        for grid, wanted, figure in (("a", 5, 8.0), ("a", 10, 1.0), ("b", 5, 4.0), ("b", 10, 3.0))
    }
    rows = sweep.table(cells, 100).splitlines()
    assert rows[2].split() == ["ddim", "a", "8.00", "1.00*", "<"] and rows[3].split() == [
        "ddim",
        "b",
        "4.00*",
        "3.00",
    ]
    assert sweep.curves(cells) == {"ddim, a": [(5, 8.0), (10, 1.0)]}


def test_a_sweep_can_be_plotted(run, options, tmp_path):
    settings = [
        str(run),
        *options,
        *SWEEP,
        *split("--samplers ddim --grids power --out", tmp_path / "sweep.jsonl"),
    ]
    assert evaluate.main([*settings, "--plot", str(tmp_path / "sweep.png")]) == 0
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.width == 1600


@pytest.mark.parametrize(
    "heights", [[0.5] * 14, [0.0] * 14, [0.1, 0.11, 0.9], [1.0], [k / 40 for k in range(41)]]
)
def test_the_labels_of_a_plot_do_not_touch(heights):
    found = plot._apart(heights)
    gap = min(plot._GAP, 1 / max(len(found) - 1, 1))
    assert (
        all(b - a > gap - 1e-9 for a, b in pairwise(found)) and found[0] > -1e-9 and found[-1] <= 1
    )
    assert plot._apart([0.1, 0.4, 0.9]) == [0.1, 0.4, 0.9]


def test_a_plot_without_matplotlib_costs_one_line_before_the_work(
    run, options, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = split("--out", tmp_path / "s", "--plot", tmp_path / "s.png")
    assert evaluate.main([str(run), *options, *SWEEP, *files]) == 2
    assert "pip install matplotlib" in error_of(capsys) and not (tmp_path / "s").exists()


# --- Bad input ------------------------------------------------------------------------------------


def test_a_damaged_judge_is_said_to_be_one(run, options, referee, tmp_path, capsys):
    def fails(folder, words):
        assert evaluate.main([str(run), *options, "--judge", str(folder), "--samples", "6"]) == 2
        assert words in error_of(capsys)

    for name, words in (
        (hub.WEIGHTS, "damaged"),
        (folder.TEXTURE, "damaged"),
        (folder.REFERENCE, "damaged"),
        (hub.CONFIG, "not valid JSON"),
    ):
        broken = shutil.copytree(referee, tmp_path / name)
        content = bytearray((broken / name).read_bytes())
        content[-3] ^= 1
        (broken / name).write_bytes(content)
        fails(broken, words)
        (broken / name).unlink()
        fails(broken, "has no " + name if name != hub.CONFIG else "no judges in")
    config = json.loads((referee / hub.CONFIG).read_text())
    for changes, words in (
        ({"size": 10**9}, "4..256"),
        ({"classes": 11}, "config.json wants"),
        ({"dataset": []}, "dataset"),
        ({"fingerprint": "0"}, "not those"),
    ):
        broken = shutil.copytree(referee, tmp_path / "changed", dirs_exist_ok=True)
        (broken / hub.CONFIG).write_text(json.dumps(config | changes))
        fails(broken, words)
    assert load_file(referee / hub.WEIGHTS)["out.bias"].shape == (10,)


def test_pictures_that_cannot_be_judged_cost_one_line(options, tmp_path, capsys):
    for name, picture, words in (
        ("large", Image.new("L", (32, 32)), "32×32"),
        ("coloured", Image.new("RGB", (28, 28), "red"), "colours"),
        ("clear", Image.new("RGBA", (28, 28)), "RGBA"),
        ("few", Image.new("L", (28, 28)), "too few"),
    ):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "0.png")
        assert evaluate.main([str(tmp_path / name), *options]) == 2
        assert words in error_of(capsys)
    (tmp_path / "few" / "1.png").write_bytes(b"no picture")
    assert evaluate.main([str(tmp_path / "few"), *options]) == 2
    assert "1.png cannot be evaluated" in error_of(capsys)
    assert evaluate.main([str(tmp_path / "few"), *options, "--samples", "50"]) == 2
    assert "has 2 PNGs, fewer than" in error_of(capsys)


def test_a_model_of_another_size_than_the_judge_is_refused(options, tmp_path, capsys):
    for name, content in hub.files(tiny_unet(), dataset="mnist").items():
        (tmp_path / name).write_bytes(content)
    assert evaluate.main([str(tmp_path), *options, "--samples", "6"]) == 2
    assert "size 8, but the judge reads size 28" in error_of(capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--samples", "0"], "--samples must be in"),
        (["--seeds", "0"], "--seeds must be in"),
        (["--steps", "0"], "steps"),
        (["--sampler", "x"], "unknown sampler"),
        (["--grid", "x"], "grid"),
        (["--guidance", "-1"], "guidance"),
        (["--samples", "1000000", "--seeds", "1000000"], "seeds"),
        (["--out", "nowhere/figures.json"], "cannot write"),
        (["--out", "."], "cannot write"),
        (["--plot", "x.png"], "--plot"),
        (["--samplers", "ddim"], "belongs to --sweep"),
        (["--sweep"], "needs --out"),
        (["--sweep", "--out", "s", "--steps", "3"], "--steps"),
        (["--sweep", "--out", "s", "--samplers", "x"], "unknown sampler"),
        (["--sweep", "--out", "s", "--grids", "x"], "grid"),
        (["--sweep", "--out", "s", "--evaluations", "0"], "steps must be"),
        (["--data", "nowhere"], "MNIST is not"),
        (["--judge", "nowhere"], "no judges in"),
    ],
)
def test_bad_options_cost_one_line_and_exit_code_2(
    run, options, tmp_path, monkeypatch, capsys, changes, words
):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(run), *options, "--samples", "6", *changes]) == 2
    assert words in error_of(capsys)
    assert not list(tmp_path.glob("s*"))


def test_no_labels_of_a_model_without_classes_cost_one_line(options, tmp_path, capsys):
    for name, content in hub.files(tiny_unet(size=28, classes=0), dataset="mnist").items():
        (tmp_path / name).write_bytes(content)
    assert evaluate.main([str(tmp_path), *options, "--samples", "6", "--unlabelled"]) == 2
    assert "knows no classes" in error_of(capsys)


def test_without_a_judge_for_the_data_set_people_are_told_how_to_make_one(run, tmp_path, capsys):
    assert evaluate.main([str(run), "--dataset", "kmnist", "--data", str(tmp_path)]) == 2
    assert "make them with python -m train.evaluate.judge" in error_of(capsys)


def test_a_missing_model_and_a_judge_without_classes_cost_one_line(options, tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "nowhere"), *options]) == 2
    assert "no model at" in error_of(capsys)
    assert evaluate.main([str(tmp_path), *options]) == 2
    assert "has no config.json" in error_of(capsys)
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    assert (
        judge.main(
            ["--dataset", "folder", "--data", str(tmp_path), "--out", str(tmp_path / "judge")]
        )
        == 2
    )
    assert "learns to tell classes apart" in error_of(capsys) and not (tmp_path / "judge").exists()


def test_a_judge_is_not_replaced_by_another(referee, capsys):
    before = (referee / hub.WEIGHTS).read_bytes()
    assert judge.main(["--data", str(DIGITS), "--out", str(referee), "--epochs", "1"]) == 2
    assert "already holds judges" in error_of(capsys)
    assert judge.main(["--dataset", "mnist", "--data", str(DIGITS)]) == 2, "the shipped one"
    assert (referee / hub.WEIGHTS).read_bytes() == before
