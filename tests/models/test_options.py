"""The command line of train.py: every option with its default, and values that reach the recipe."""

import re
from dataclasses import dataclass, fields, replace

import pytest

from models.methods.recipes import names, recipe
from models.methods.registry import REGISTRY
from models.options import check_options, describe, option
from models.training.config import Training
from tools.command_line import Failure
from tools.run.options import parse


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        parse([*words, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def entries(text):
    """{option: its help in one line} of a help page."""
    text = text.split("options:", 1)[1]
    found = re.findall(r"^  (--[a-z0-9-]+)(.*?)(?=^  --|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(rest.split()) for name, rest in found}


def test_help_lists_every_option_with_its_default(capsys):
    shown = entries(help_of(capsys))
    recipe_fields = {
        field.name for cls in (Training, *(entry.settings for entry in REGISTRY.values())) for field in fields(cls)
    }
    missing = {f"--{name.replace('_', '-')}" for name in recipe_fields} - shown.keys()
    assert not missing
    options = parse(["--method", "clim", "--data", "x"])[0]
    assert {f"--{name.replace('_', '-')}" for name in vars(options)} <= shown.keys()
    for name, text in shown.items():
        assert re.search(r"default: |usually |none: |required", text), (
            f"{name} does not say what it is if not given: {text}"
        )
        assert len(text.split()) > 3, f"{name} has no help"
    for name in ("--max-steps", "--checkpoint-every", "--log-every"):
        assert "steps" in shown[name]
    assert (
        "epochs" in shown["--knn-every"] and "epochs" in shown["--warmup-epochs"] and "pixels" in shown["--image-size"]
    )
    assert "(default: false)" in shown["--resume"] and "bf16" in shown["--precision"]


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_help_of_a_method_lists_its_recipes_and_their_values(method, capsys):
    assert f"Recipes of {method}: {', '.join(names(method))}" in " ".join(help_of(capsys, "--method", method).split())
    name = names(method)[0]
    row = REGISTRY[method].rows[name]
    shown = entries(help_of(capsys, "--method", method, "--recipe", name))
    for field, item in row.items():
        text = shown[f"--{field.replace('_', '-')}"]
        assert re.search(rf"\(default: [^ ]*, {item.source}\)", text), f"{field}: {text}"
    assert f"(default: {row['epochs'].value}, " in shown["--epochs"]


def test_given_values_are_overrides_and_others_are_not():
    words = "--lr 0.5 --resolutions 32,24 --no-decay-vectors --epochs 3 --max-steps 7"
    options, overrides = parse(["--method", "clim", "--data", "a.beton", *words.split()])
    assert overrides == {"lr": 0.5, "resolutions": (32, 24), "decay_norm_and_bias": False, "epochs": 3}
    assert (options.data, options.max_steps, options.recipe, options.seed) == ("a.beton", 7, None, 0)
    assert not hasattr(options, "lr")
    made = recipe("clim", "cifar10", **overrides)
    assert (made.training.lr, made.settings.resolutions) == (0.5, (32, 24))
    assert made.sources["lr"] == "command line" and made.sources["momentum"] != "command line"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data x", "give --method NAME and --data FILE"),
        ("--method clim", "give --method NAME and --data FILE"),
        ("--method magic --data x", "invalid choice: 'magic'"),
        ("--method clim --data x --colour red", "unrecognized arguments: --colour red"),
        ("--method clim --data x --epoch 3", "unrecognized arguments"),
        ("--method clim --data x --epochs 1.5", "invalid int value: '1.5'"),
        ("--method clim --data x --lr fast", "invalid finite float value: 'fast'"),
        ("--method clim --data x --resolutions 32,", "invalid list of int value: '32,'"),
        ("--method clim --data", "argument --data: expected one argument"),
    ],
)
def test_what_the_parser_refuses_is_one_line(words, message):
    with pytest.raises(Failure, match=re.escape(message)) as caught:
        parse(words.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--precision half", "--precision is 'half'; take one of bf16, fp16, fp32"),
        ("--verify most", "--verify is 'most'; take one of sample, full, none"),
        ("--loader tape", "--loader is 'tape'; take one of auto"),
        ("--log-with paper", "--log-with is 'paper'; take one of tensorboard, wandb"),
        ("--accumulate 0", "--accumulate is 0; give at least 1"),
        ("--keep 0", "--keep is 0; give at least 1"),
        ("--log-every -5", "--log-every is -5; give at least 1"),
        ("--max-steps -1", "--max-steps is -1; give 0 or more"),
        ("--seed -1", "--seed is -1; give 0 or more"),
        ("--threads -2", "--threads is -2; give 0 or more"),
    ],
)
def test_run_options_out_of_range(words, message):
    with pytest.raises(Failure, match=re.escape(message)):
        parse(["--method", "clim", "--data", "x", *words.split()])


def test_usual_options_pass():
    options, overrides = parse(["--method", "clim", "--data", "x"])
    assert overrides == {} and str(options.folder) == "runs/clim-x"


def test_a_former_name_is_still_taken():
    overrides = parse(["--method", "clim", "--data", "x", "--image-keep", "0.5", "--decay-vectors"])[1]
    assert overrides == {"crop_ratio": 0.5, "decay_norm_and_bias": True}


@dataclass(frozen=True)
class Options:
    """One field of each kind of bound."""

    share: float = option(0.5, "a share", at_least=0, at_most=1)
    count: int = option(1, "a count", at_least=1)
    rates: tuple[float, ...] = option((0.1, 1.0), "rates", above=0)
    sizes: tuple[int, ...] | None = option(None, "sizes", at_least=8)
    name: str | None = option(None, "a name", choices=(None, "one", "two"))
    fact: str = "no option"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.5}, "--share is 1.5; give 0 to 1"),
        ({"share": float("nan")}, "--share is nan; give 0 to 1"),
        ({"count": 0}, "--count is 0; give at least 1"),
        ({"rates": (0.1, 0.0)}, "--rates is 0.1,0; give numbers above 0, such as 0.1,1"),
        ({"sizes": (16, 4)}, "--sizes is 16,4; give at least 8"),
        ({"name": "three"}, "--name is 'three'; take one of one, two"),
    ],
)
def test_every_bound_is_checked_in_one_line(values, message):
    check_options(Options())
    check_options(Options(share=0, rates=(3.0,), sizes=(8,), name="one", fact="anything"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_options(replace(Options(), **values))


def test_kinds_come_from_the_annotations():
    kinds = {item.name: (item.kind, item.element) for item in describe(Options)}
    assert kinds["rates"] == (tuple, float) and kinds["sizes"] == (tuple, int)
    assert kinds["name"] == (str, str) and "fact" not in kinds
