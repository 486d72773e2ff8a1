"""How programs meet their machine: the device that is asked for."""

import pytest
import torch

from tools.command_line import Failure
from tools.run.accelerator import device_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "--device is 'foo'; take cpu or cuda"),
        ("mps", "--device is 'mps'; take cpu or cuda"),
        ("\x1b[1m\n", r"--device is '\x1b[1m\n'; take cpu or cuda"),
        ("cuda:99", "--device is 'cuda:99', but torch finds no such GPU here; take cpu, or ask tools.doctor"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(text, message):
    with pytest.raises(Failure) as caught:
        device_of(text)
    assert str(caught.value) == message


def test_the_usual_device():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of(None) == torch.device("cuda" if torch.cuda.is_available() else "cpu")
