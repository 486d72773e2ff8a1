"""Splits of the labels: balanced, reproducible, within each other; published lists by name."""

import numpy as np
import pytest

from models.evaluation.label_split import balanced_split, held_out_split, parse_share, read_list

RNG = np.random.default_rng(0)
LABELS = RNG.integers(-1, 10, 5000)  # one in eleven is unlabelled


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_class_has_its_share_and_at_least_one(share, seed):
    chosen = balanced_split(LABELS, share, seed)
    assert np.array_equal(chosen, np.unique(chosen)) and (LABELS[chosen] >= 0).all()
    sizes = np.bincount(LABELS[LABELS >= 0])
    expected = [max(1, int(share * size + 0.5)) for size in sizes]
    assert np.bincount(LABELS[chosen], minlength=10).tolist() == expected


def test_rare_and_missing_classes():
    labels = np.array([0] * 300 + [2, 3, 3])  # class 1 has no image
    assert np.bincount(labels[balanced_split(labels, 0.01, 0)]).tolist() == [3, 0, 1, 1]


def test_a_split_is_a_function_of_labels_share_and_seed():
    labels = np.arange(1000) % 10
    assert balanced_split(labels, 0.01, 0).tolist() == balanced_split(labels.copy(), 0.01, 0).tolist()
    assert balanced_split(labels, 0.01, 0).tolist() == [143, 204, 221, 269, 418, 560, 726, 802, 915, 947]  # for ever
    assert balanced_split(labels, 0.01, 0).tolist() != balanced_split(labels, 0.01, 1).tolist()
    assert set(balanced_split(labels, 0.01, 3)) < set(balanced_split(labels, 0.1, 3))


def test_samples_are_drawn_evenly():
    counts = sum(np.bincount(balanced_split(np.zeros(50, int), 0.2, seed), minlength=50) for seed in range(2000))
    assert counts.sum() == 20_000 and abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_what_is_held_out_is_another_draw_and_never_all_of_a_class():
    labels = np.arange(1000) % 10
    held = held_out_split(labels, 0.1, 0)
    assert np.bincount(labels[held]).tolist() == [10] * 10
    assert set(held) != set(balanced_split(labels, 0.1, 0))
    assert held_out_split(np.array([0, 1, 1, 1, -1]), 0.1, 0).tolist()[0] in (1, 2, 3)
    with pytest.raises(ValueError, match="no class has two labels, so none can be held out"):
        held_out_split(np.array([0, 1, 2, -1]), 0.1, 0)


def test_a_share_is_a_percentage():
    assert [parse_share(text) for text in ("all", "100%", "10%", "1%", "0.5%")] == [1, 1, 0.1, 0.01, 0.005]
    for text in ("", "10", "0%", "101%", "-1%", "ten%", "nan%"):
        with pytest.raises(ValueError, match=r"--labels is .*; give 'all' or a percentage such as 10%"):
            parse_share(text)


NAMES = ["n01/n01_1.JPEG", "n01/n01_2.JPEG", "n02/n02_1.JPEG", "n02/x.JPEG", "n03/x.JPEG", "n03/y.v2.png"]


def test_a_published_list_by_name_stem_or_path(tmp_path):
    path, labels = tmp_path / "list.txt", np.array([0, 0, 1, 1, 2, 2])
    path.write_text("n02_1.JPEG\nn01/n01_1.JPEG\n\n n01_2 \nn03/x\nelsewhere/y.v2.png\n")
    numbers, digest = read_list(path, NAMES, labels, tmp_path)
    assert numbers.tolist() == [0, 1, 2, 4, 5]
    path.write_text("n01_1.JPEG\nn01_2\nn02_1\nn03/x.JPEG\nn03/y.v2.png\n")
    assert read_list(path, NAMES, labels, tmp_path)[1] == digest  # of what is chosen, not of how it is written
    path.write_text("n01_1.JPEG\n")
    assert read_list(path, NAMES, labels, tmp_path)[1] != digest


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("n01_1.JPEG\nn09_1.JPEG\n", NAMES, r"list.txt, line 2: .*set has no image 'n09_1.JPEG'"),
        ("x.JPEG\n", NAMES, "line 1: .* has several images 'x.JPEG'; name them with their folders"),
        ("n03/y.v2.png\n", NAMES, "line 1: image 'n03/y.v2.png' of .* has no label"),
        ("\n", NAMES, "list.txt names no image"),
        ("a\n", [], "keeps no names of its images, which --label-list needs"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(text, names, message, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_list(path, names, np.array([0, 0, 1, 1, 2, -1]), tmp_path / "set")
    assert "\n" not in str(caught.value)
