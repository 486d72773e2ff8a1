"""Labels that a list gives: every way in which lists are published, and lists that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.formats.dataset import image_names
from pipelines.formats.opening import open_dataset
from tests.support.conversion import images_of, one_line, refused
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main

NAMES = [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3)]
PICTURES = [encoded(smooth(12, 12 + i, i)) for i in range(3)]


def flat(root: Path, below: str = "") -> Path:
    for name, data in zip(NAMES, PICTURES, strict=True):
        write(root / below / name, data)
    return root


def labels(path: Path) -> dict[str, str]:
    dataset = open_dataset(path)
    names = [dataset.classes[label] if label >= 0 else "" for label in dataset.labels]
    return dict(zip((Path(name).name for name in image_names(dataset)), names, strict=True))


def stems(text: str) -> str:
    return text.replace(".JPEG", "")


@pytest.mark.parametrize(
    "text",
    [
        "{0},cat\n{1},owl\n{2},cat\n",
        "id,label\n{0},cat\n{1},owl\n{2},cat\n",
        "label,image_id\ncat,{0}\nowl,{1}\ncat,{2}\n",
        "\ufeffId;Category\r\n{2};cat\r\n{1};owl\r\n{0};cat\r\n",
        "strange,words\n{0},cat\n{1},owl\n{2},cat\n",
        "filename\tage\tbreed\n{0}\t3\tcat\n{1}\t4\towl\n{2}\t5\tcat\n",
        "{0} cat\n{1} owl\n\n{2}  cat\n",
        "./val/{0} cat\nval/{1} owl\n{2} cat\n",
        "ImageId,PredictionString\n{0},cat 85 1 499 272\n{1},owl 1 2 3 4 owl 5 6 7 8 \n{2},cat 1 2 3 4\n",
    ],
)
@pytest.mark.parametrize("ending", [True, False])
def test_lists_of_a_flat_validation_folder(tmp_path: Path, text: str, ending: bool) -> None:
    text = text.format(*NAMES)
    list_of = write(tmp_path / "list.csv", (text if ending else stems(text)).encode())
    out = tmp_path / "p.beton"
    assert main([str(flat(tmp_path / "val")), str(out), "--labels", str(list_of), "--workers", "1"]) == 0
    assert labels(out) == dict(zip(NAMES, ("cat", "owl", "cat"), strict=True))
    assert open_dataset(out).classes == ("cat", "owl")


def test_one_number_a_line_in_the_order_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_of = write(tmp_path / "ILSVRC2012_validation_ground_truth.txt", b"490\n61\n490\n")
    folder = flat(tmp_path / "val")
    assert main([str(folder), str(tmp_path / "p.beton"), "--labels", str(list_of), "--workers", "1"]) == 0
    assert labels(tmp_path / "p.beton") == dict(zip(NAMES, ("490", "61", "490"), strict=True))
    assert open_dataset(tmp_path / "p.beton").classes == ("61", "490")  # as numbers, not as texts
    assert f"the first 490 for {NAMES[0]}" in capsys.readouterr().err
    write(list_of, b"1\n2\n")
    text = one_line(refused(capsys, folder, tmp_path / "q.beton", "--labels", str(list_of)))
    assert "has 2 labels without names, and there are 3 images" in text


def test_a_challenge_with_its_solution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class folders to train on, and a flat validation folder whose classes a list gives."""
    folder = class_folder(tmp_path / "data" / "ILSVRC" / "Data" / "CLS-LOC" / "train", ("n01", "n02"))
    flat(folder.parent, "val")
    solution = "ImageId,PredictionString\n{},n02 85 1 499 272\n{},n01 131 0 499 254\n{},n01 1 2 3 4\n"
    list_of = write(tmp_path / "data" / "LOC_val_solution.csv", stems(solution.format(*NAMES)).encode())
    out = tmp_path / "p.beton"
    assert main([str(tmp_path / "data"), str(out), "--labels", str(list_of), "--workers", "1"]) == 0
    assert labels(tmp_path / "p-val.beton") == dict(zip(NAMES, ("n02", "n01", "n01"), strict=True))
    assert open_dataset(out).labels.tolist() == [0, 0, 0, 1, 1, 1]
    capsys.readouterr()
    write(list_of, stems(solution.format(*NAMES)).replace("n01", "n77").encode())
    text = one_line(refused(capsys, tmp_path / "data", tmp_path / "q.beton", "--labels", str(list_of)))
    assert "'n77' is in the split val but not in train" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no lines"),
        ("a,b,c\n1,2,3\n", "do not say which are names and labels"),
        ("x.jpg,cat\ny.jpg,owl\n", "no line of list.csv names an image: it has x.jpg"),
        ("{0},cat\n{0},owl\n", "has two labels in list.csv"),
        ("{0},cat\n{1},\n", "has no label in list.csv"),
        ("{0}\n{1}\n", "has no label in list.csv"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    list_of = write(tmp_path / "list.csv", text.format(*NAMES).encode())
    folder = flat(tmp_path / "val")
    assert message in one_line(refused(capsys, folder, tmp_path / "p.beton", "--labels", str(list_of)))


def test_lines_and_images_that_have_no_partner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_of = write(tmp_path / "list.csv", f"{NAMES[0]},cat\n{NAMES[1]},owl\nelsewhere.jpg,cat\n".encode())
    folder, out = flat(tmp_path / "val"), tmp_path / "p.beton"
    assert f"{NAMES[2]}: has no line in list.csv" in refused(capsys, folder, out, "--labels", str(list_of))
    assert main([str(folder), str(out), "--labels", str(list_of), "--workers", "1", "--skip-bad"]) == 0
    assert labels(out) == {NAMES[0]: "cat", NAMES[1]: "owl"}
    assert "1 of 3 lines of list.csv name no image, such as elsewhere.jpg" in capsys.readouterr().err
    missing = refused(capsys, folder, tmp_path / "q.beton", "--labels", str(tmp_path / "no.csv"))
    assert "cannot be read: No such file" in one_line(missing)
    write(folder / "more" / NAMES[0], PICTURES[0])
    text = one_line(refused(capsys, folder, tmp_path / "q.beton", "--labels", str(list_of), "--layout", "flat"))
    assert f"{NAMES[0]} in list.csv names 2 images" in text


def test_a_table_of_paths_and_labels_is_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path / "photos")
    rows = [
        f"photos/{name},{label},{split}"
        for name, label, split in zip(NAMES, ("b", "a", "b"), ("train", "train", "validation"), strict=True)
    ]
    table = write(tmp_path / "all.csv", "\n".join(["path,label,split", *rows]).encode())
    assert main([str(table), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    train, val = open_dataset(tmp_path / "p.beton"), open_dataset(tmp_path / "p-val.beton")
    assert train.classes == val.classes == ("a", "b")
    assert train.labels.tolist() == [1, 0] and val.labels.tolist() == [1]
    assert images_of(train) == PICTURES[:2] and images_of(val) == PICTURES[2:]
    write(table, f"photos/{NAMES[0]} 10\nphotos/{NAMES[1]} 9\n".encode())
    assert main([str(table), str(tmp_path / "q.beton"), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "q.beton").classes == ("9", "10")
    capsys.readouterr()
    write(table, b"path,label\n../secret.jpg,a\nphotos/gone.jpg,a\n/etc/passwd.png,a\n")
    text = refused(capsys, table, tmp_path / "r.beton")
    assert "../secret.jpg: lies outside the folder of the table" in text and "/etc/passwd.png: lies outside" in text
    assert "photos/gone.jpg: cannot be read: No such file" in text
    write(table, b"just,words\nand,more\n")
    assert "names no image files" in one_line(refused(capsys, table, tmp_path / "r.beton"))


def test_options_that_a_converted_source_has_no_use_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(flat(tmp_path / "val")), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    capsys.readouterr()
    text = one_line(refused(capsys, tmp_path / "p.beton", tmp_path / "q.beton", "--layout", "flat"))
    assert "says itself what its images are" in text


def table_of(root: Path, lines: str) -> Path:
    flat(root / "photos")
    return write(root / "all.csv", lines.encode())


def test_a_table_that_names_an_image_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, out = f"photos/{NAMES[0]}", tmp_path / "p.beton"
    for second, what in ((f"./{one},b,train", "labels"), (f"{one},a,val", "splits")):
        table = table_of(tmp_path, f"path,label,split\n{one},a,train\n{second}\n")
        assert f"has two {what} in all.csv; remove one line" in one_line(refused(capsys, table, out))
    table = table_of(tmp_path, f"path,label\n{one},a\nphotos/{NAMES[1]},b\n{one},a\n")
    assert main([str(table), str(out), "--workers", "1"]) == 0
    assert images_of(open_dataset(out)) == PICTURES[:2]


def test_paths_in_a_table_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(tmp_path, f"path,label\nphotos/{NAMES[0]},a\nphotos/x\0.jpg,a\nphotos/{'y' * 400}.jpg,a\n")
    text = refused(capsys, table, tmp_path / "p.beton")
    assert "photos/x\\x00.jpg: has a zero byte in its path" in text and "yyy.jpg: cannot be read: File name" in text
    assert main([str(table), str(tmp_path / "p.beton"), "--workers", "1", "--skip-bad"]) == 0
    assert images_of(open_dataset(tmp_path / "p.beton")) == PICTURES[:1]


def test_a_table_whose_files_are_all_outside_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(tmp_path, "path,label\n../a.jpg,a\n../b.jpg,b\n")
    text = refused(capsys, table, tmp_path / "p.beton", "--skip-bad")
    assert "../a.jpg: lies outside the folder of the table" in text and "split train" not in text
    table = table_of(tmp_path, f"path,label,split\nphotos/{NAMES[0]},a,val\n")
    assert "has no image of a split train" in one_line(refused(capsys, table, tmp_path / "p.beton"))


def test_a_list_of_only_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_of = write(tmp_path / "list.csv", b"id,label\n")
    text = refused(capsys, flat(tmp_path / "val"), tmp_path / "p.beton", "--labels", str(list_of))
    assert "list.csv holds no lines below its header" in one_line(text)


def test_a_point_in_a_name_is_no_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.1 is the image 0.1.jpg and not 0.jpg."""
    write(tmp_path / "val" / "0.jpg", PICTURES[0])
    list_of = write(tmp_path / "list.csv", b"id,label\n0.1,cat\n")
    text = refused(capsys, tmp_path / "val", tmp_path / "p.beton", "--labels", str(list_of))
    assert "no line of list.csv names an image: it has 0.1" in one_line(text)
    write(tmp_path / "val" / "0.1.jpg", PICTURES[1])
    write(list_of, b"id,label\n0.1,cat\n0,owl\n")
    assert main([str(tmp_path / "val"), str(tmp_path / "p.beton"), "--labels", str(list_of), "--workers", "1"]) == 0
    assert labels(tmp_path / "p.beton") == {"0.1.jpg": "cat", "0.jpg": "owl"}
