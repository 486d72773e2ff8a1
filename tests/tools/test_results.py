"""The tables of the Markdown files are drawn from the files of tools/results/, and every one is up to date."""

import json

import pytest

from tools import results

BENCHMARK = {
    "benchmarks": {
        "loader": [
            {
                "case": "two views", "unit": "samples/s",
                "contenders": {
                    "ours": {"median": 2000.0, "spread": 0.1, "noisy": False, "ours_is_better": 1.0, "peak_mib": 10.4},
                    "theirs": {"median": 12.34, "spread": 0.3, "noisy": True, "ours_is_better": 162.07},
                },
            }
        ]
    }
}  # fmt: skip
ROW = {
    "method": "moco", "knn": 30.0, "linear": 31.0, "first_loss": 7.0, "last_loss": 6.5, "spread": 0.4, "rank": 12.0,
    "images_seen": 99840, "seconds": 100.4, "knn_untrained": 24.25, "knn_pixels": 29.0,
    "linear_untrained": 25.5, "linear_pixels": 30.0,
}  # fmt: skip


def test_tables_are_drawn_between_their_marks(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(BENCHMARK))
    (tmp_path / "s.json").write_text(json.dumps({"rows": [ROW, ROW | {"method": "msvq", "knn": 31.5}]}))
    readme = tmp_path / "README.md"
    before = "a\n<!-- drawn: loader b.json -->\nold\n<!-- end -->\nb\n<!-- drawn: sweep s.json -->\n<!-- end -->\nc\n"
    readme.write_text(before)
    assert results.main(["--readme", str(readme), "--check"]) == 1
    assert readme.read_text() == before
    assert results.main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert "old" not in text
    assert "| two views | ours | 2,000 samples/s |  | 10% | 10 |" in text
    assert "|  | theirs | 12.3 samples/s | 162.07x | 30% (noisy) |  |" in text
    assert (
        text.index("| msvq | **31.50**")
        < text.index("| moco | **30.00**")
        < text.index("| *untrained* | 24.25 | 25.50 |")
    )
    assert results.main(["--readme", str(readme), "--check"]) == 0


def test_a_reproduction_is_drawn_beside_the_published_figures(tmp_path):
    found = {
        "recipe": "cifar10",
        "steps": 10,
        "of_steps": 39000,
        "linear_protocol": "linear-p",
        "linear_best_epoch": 86.0,
    }
    published = {"published": {"linear": 86.18, "knn": None}, "difference": {"linear": -0.18}}
    rows = [ROW | found | published, ROW | found | {"method": "clim", "steps": 39000}]
    (tmp_path / "s.json").write_text(json.dumps({"rows": rows}))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- drawn: reproduction s.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert "| moco | cifar10 | 10 of 39,000 | 30.00 |  |  | 31.00 | 86.00 | 86.18 | -0.18 | `linear-p` |" in text
    assert "| clim | cifar10 | 39,000 | 30.00 |  |  | 31.00 | 86.00 |  |  | `linear-p` |" in text


def test_seeds_are_drawn_as_mean_and_deviation(tmp_path, capsys):
    for seed, knn in enumerate((30.0, 31.0, 32.0)):
        budget = {"data": [1], "own_options": [], "options": ["--width", "8", "--seed", str(seed)]}
        (tmp_path / f"{seed}.json").write_text(json.dumps(budget | {"rows": [ROW | {"knn": knn}]}))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- drawn: seeds 0.json,1.json,2.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 0
    assert "| moco | 3 | 31.00 ± 1.00 | 31.00 ± 0.00 |" in readme.read_text()
    other = json.loads((tmp_path / "2.json").read_text()) | {"options": ["--width", "16", "--seed", "2"]}
    (tmp_path / "2.json").write_text(json.dumps(other))
    assert results.main(["--readme", str(readme)]) == 2
    assert "differ in more than --seed" in capsys.readouterr().err


def test_own_options_of_methods_that_not_every_sweep_has_are_no_difference(tmp_path):
    for seed, own in enumerate((["clim:whiten=8", "moco:queue-size=9"], ["moco:queue-size=9"])):
        rows = [ROW] if seed else [ROW, ROW | {"method": "clim"}]
        budget = {"data": [1], "own_options": own, "options": ["--seed", str(seed)], "rows": rows}
        (tmp_path / f"{seed}.json").write_text(json.dumps(budget))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- drawn: seeds 0.json,1.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 0
    assert "| moco | 2 |" in readme.read_text() and "clim" not in readme.read_text()


def test_what_a_change_moved_is_drawn_seed_by_seed(tmp_path, capsys):
    for change, values in (("area", (30.0, 34.0)), ("bilinear", (31.0, 33.0))):
        for seed, knn in enumerate(values):
            budget = {"data": [1], "own_options": [], "options": ["--resize", change, "--seed", str(seed)]}
            (tmp_path / f"{change}{seed}.json").write_text(json.dumps(budget | {"rows": [ROW | {"knn": knn}]}))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- drawn: moved area0.json,area1.json,bilinear0.json,bilinear1.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 0
    expected = (
        "| moco | 2 | 32.00 ± 2.83 | 32.00 ± 1.41 | **+0.00 ± 1.41** | 31.00 ± 0.00 | 31.00 ± 0.00 | **+0.00 ± 0.00** |"
    )
    assert expected in readme.read_text()
    readme.write_text("<!-- drawn: moved area1.json,bilinear1.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 0
    assert "| moco | 1 | 34.00 | 33.00 | **-1.00** | 31.00 | 31.00 | **+0.00** |" in readme.read_text()
    readme.write_text("<!-- drawn: moved area0.json,area1.json,bilinear0.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 2
    assert "do not make as many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("loader", None, "there is no"),
        ("step", "{}", "holds no table 'step'"),
        ("sweep", "no json", "holds no table"),
        ("sweep", '{"rows": []}', "holds no table"),
        ("sweep", "[]", "holds no table"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(kind, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    readme = tmp_path / "README.md"
    readme.write_text(f"<!-- drawn: {kind} x.json -->\n<!-- end -->\n")
    assert results.main(["--readme", str(readme)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_incomplete_mark_is_one_line(tmp_path, capsys):
    (tmp_path / "b.json").write_text(json.dumps(BENCHMARK))
    readme, table = tmp_path / "README.md", "<!-- drawn: loader b.json -->\n<!-- end -->\n"
    for broken in ("<!-- drawn: loader b.json -->\n", "<!-- drawn: b.json -->\n<!-- end -->\n"):
        readme.write_text(broken + table)
        assert results.main(["--readme", str(readme)]) == 2
        error = capsys.readouterr().err
        assert "README.md: 2 marks, of which 1 " in error and error.count("\n") == 1
        assert readme.read_text() == broken + table


def test_every_markdown_file_of_the_project_is_drawn(tmp_path, monkeypatch, capsys):
    """Files are named relative to the Markdown file; folders that are not the project's are left alone."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    old, texts = "<!-- drawn: loader {} -->\nold\n<!-- end -->\n", {}
    for folder, name in ((".", "tools/results/b.json"), ("tools/benchmarks", "../results/b.json"), (".venv", "b.json")):
        path = tmp_path / folder / "README.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.setdefault(path, old.format(name)))
    (tmp_path / "tools/results").mkdir()
    (tmp_path / "tools/results/b.json").write_text(json.dumps(BENCHMARK))
    assert results.main(["--check"]) == 1
    error = capsys.readouterr().err
    assert error.count("a table is out of date; run: python -m tools.results\n") == 2 == error.count("\n")
    assert all(path.read_text() == text for path, text in texts.items())
    assert results.main([]) == results.main(["--check"]) == 0
    assert [("162.07x" in path.read_text()) for path in texts] == [True, True, False]


def test_all_tables_of_the_project_are_up_to_date():
    files = {str(path.relative_to(results.ROOT)) for path in results.marked_files(results.ROOT)}
    assert files >= {"tools/benchmarks/README.md", "tools/results/README.md"}
    assert results.main(["--check"]) == 0
