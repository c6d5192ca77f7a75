"""Uploads: kept by content, under a harmless name, within the limit."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.runs.uploads import safe_name, store_upload
from prefix_studio.settings import MEGABYTE


@pytest.fixture
def temporary(tmp_path):
    path = tmp_path / "gradio-temp.csv"
    path.write_bytes(b"prompt,completion\na,b\n")
    return path


def test_an_upload_outlives_the_temporary_file_it_came_in(home, temporary):
    content = temporary.read_bytes()
    kept = store_upload(home, temporary, "My rows.csv")
    temporary.unlink()

    assert kept == home.uploads / hashlib.sha256(content).hexdigest() / "My rows.csv"
    assert kept.read_bytes() == content
    assert [path.name for path in home.uploads.iterdir()] == [kept.parent.name]


def test_the_same_content_is_kept_once(home, temporary):
    assert store_upload(home, temporary) == store_upload(home, temporary)
    assert len(list(home.uploads.iterdir())) == 1


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(home, tmp_path):
    big = tmp_path / "big.csv"
    big.write_bytes(b"x" * (MEGABYTE + 1))

    with pytest.raises(StudioError, match=r"big.csv is larger than 1 MB.*PREFIX_STUDIO_MAX_UPLOAD_MB"):
        store_upload(replace(home, max_upload_bytes=MEGABYTE), big)
    assert list(home.uploads.iterdir()) == []


@pytest.mark.parametrize("missing", ["gone.csv", "."])
def test_what_is_no_file_is_refused(home, tmp_path, missing):
    with pytest.raises(StudioError, match="There is no file"):
        store_upload(home, tmp_path / missing, "rows.csv")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rows.csv", "rows.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\rows.csv", "rows.csv"),
        ("Zeilen für mich (2).jsonl", "Zeilen für mich (2).jsonl"),
        ("a\x00b<script>.csv", "a_b_script_.csv"),
        ("..", "data"),
        ("", "data"),
        (".csv", "csv"),
        ("con.csv", "_con.csv"),
        ("x" * 300 + ".parquet", "x" * 52 + ".parquet"),
    ],
)
def test_names_are_made_harmless_and_keep_their_ending(given, kept):
    assert safe_name(given) == kept


def test_a_long_name_in_any_script_fits_the_file_system(home, temporary):
    assert store_upload(home, temporary, "表" * 300 + ".csv").is_file()
