"""What a person sees: paths and names as they are, and nothing that a terminal would obey."""

import pytest

from tools.run.progress import Display


@pytest.mark.parametrize("how", ["note", "warn"])
def test_words_are_no_markup_and_no_commands(how, capsys):
    with Display(1, 0, True) as display:
        getattr(display, how)("into runs/[/red]x[bold]\x1b[31m :smile:\nthe second line")
    assert capsys.readouterr().out == "into runs/[/red]x[bold]\\x1b[31m :smile:\nthe second line\n"
