"""Sizes that compressed images declare, on headers written by hand and by Pillow."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from deft_ct.io.codestreams import declared_size


def _jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments)


def _segment(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(content)) + content


_FRAME = struct.pack(">BHHB", 8, 300, 200, 1)  # precision, rows, columns, components


@pytest.mark.parametrize("kind", [0xC0, 0xC3, 0xCF, 0xF7])
def test_frames_of_jpeg_and_jpeg_ls(kind: int) -> None:
    assert declared_size(_jpeg(_segment(kind, _FRAME))) == (300, 200)


def test_tables_comments_and_filling_are_passed_over() -> None:
    tables = [_segment(kind, b"\0" * 30) for kind in (0xC4, 0xC8, 0xCC, 0xFE)]
    assert declared_size(_jpeg(*tables, b"\xff\xff", _segment(0xC1, _FRAME))) == (300, 200)


@pytest.mark.parametrize("format_", ["JPEG", "JPEG2000"])
def test_images_of_pillow(format_: str) -> None:
    out = io.BytesIO()
    Image.new("L", (40, 24), 7).save(out, format_)
    assert declared_size(out.getvalue()) == (24, 40)


def test_an_offset_of_the_image_is_taken_off() -> None:
    size = struct.pack(">HHIIII", 41, 0, 110, 60, 10, 20)
    assert declared_size(b"\xff\x4f\xff\x51" + size) == (40, 100)


def test_run_lengths_declare_no_size() -> None:
    assert declared_size(b"\x01\x00\x00\x00" * 16) is None


@pytest.mark.parametrize("damaged", [_jpeg(b"\x00\xc0\x00\x09" + _FRAME), _jpeg(struct.pack(">BBH", 0xFF, 0xC0, 1))])
def test_a_damaged_marker_is_an_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="damaged marker"):
        declared_size(damaged)


@pytest.mark.parametrize("cut", [_jpeg(), _jpeg(_segment(0xC0, _FRAME))[:-4], b"\xff\x4f\xff\x51\0\0"])
def test_an_image_that_is_cut_short_is_an_error(cut: bytes) -> None:
    with pytest.raises(ValueError, match="ends before it says its size"):
        declared_size(cut)
