"""From image files of any kind to 8-bit RGB: one way for conversion, inference and everything else that opens files."""
