"""PNG files with texts that Pillow refuses: read like any other, and nothing but the texts is left out."""

import pytest
from PIL import PngImagePlugin

from pipelines.decoding.image_file import open_image
from pipelines.decoding.png_text import decoded, without_texts
from pipelines.decoding.rgb import to_rgb
from tests.support.images import encoded, smooth


def test_without_texts_keeps_everything_else() -> None:
    plain = encoded(smooth(9, 9), "PNG")
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "short")
    assert without_texts(encoded(smooth(9, 9), "PNG", pnginfo=info)) == plain
    for data in (b"", b"\xff\xd8jpeg", plain[:-20], plain + b"more", plain[:8] + b"\xff" * 9):
        assert without_texts(data) == data


def test_a_picture_is_decoded_without_texts_that_are_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "a" * 3_000_000, zip=True)
    data = encoded(smooth(9, 9), "PNG", pnginfo=info)
    with pytest.raises(ValueError, match="MAX_TEXT"):
        to_rgb(open_image(data))
    assert to_rgb(decoded(data, open_image)).size == (9, 9)
    with pytest.raises(ValueError, match="is empty"):
        decoded(b"", open_image)
