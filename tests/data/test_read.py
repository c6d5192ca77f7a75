"""Every kind of file is read; every way a file can be bad is told in one sentence, with the place."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pandas
import pytest

from prefix_studio.data.read import read_rows, row_values
from prefix_studio.data.samples import list_samples
from prefix_studio.errors import StudioError

ROWS = [{"a": "1", "b": "x, y"}, {"a": "2", "b": 'say "é"'}]


def values(rows) -> list[dict]:
    return list(row_values(rows))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", 'a,b\n1,"x, y"\n2,"say ""é"""\n'),
        ("bom.csv", '\ufeffa,b\r\n1,"x, y"\r\n\r\n2,"say ""é"""\r\n'),
        ("semicolons.csv", 'a;b\n1;x, y\n2;"say ""é"""\n'),
        ("rows.tsv", 'a\tb\n1\tx, y\n2\t"say ""é"""\n'),
        ("utf16.csv", 'a\tb\n1\tx, y\n2\t"say ""é"""\n'.encode("utf-16")),
        ("rows.json", '[{"a": "1", "b": "x, y"}, {"a": "2", "b": "say \\"é\\""}]'),
        ("columns.json", '{"a": ["1", "2"], "b": ["x, y", "say \\"é\\""]}'),
        ("data.json", '{"version": 1, "data": [{"a": "1", "b": "x, y"}, {"a": "2", "b": "say \\"é\\""}]}'),
        ("lines.json", '{"a": "1", "b": "x, y"}\n{"a": "2", "b": "say \\"é\\""}\n'),
        ("rows.jsonl", ROWS),
        ("ROWS.NDJSON", ROWS),
    ],
)
def test_one_table_reads_the_same_from_every_kind_of_text_file(write, name, content):
    assert values(read_rows(write(name, content))) == ROWS


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    day = datetime.date(2026, 11, 20)
    pandas.DataFrame({"text": ["one", None], "tags": [["x"], []], "day": [day, None]}).to_parquet(path)
    assert values(read_rows(str(path))) == [
        {"text": "one", "tags": ["x"], "day": day},
        {"text": None, "tags": [], "day": None},
    ]


def test_a_csv_cell_stays_the_text_in_the_file(write):
    (row,) = values(read_rows(write("rows.csv", "code,gap,price,note\n007,NA,1.50,\n")))
    assert row == {"code": "007", "gap": "NA", "price": "1.50", "note": ""}


def test_json_values_keep_their_types_and_late_surprises_are_no_surprise(write):
    rows = [{"n": 1, "mixed": 1, "list": ["a", {"b": None}]} for _ in range(1500)]
    rows += [{"n": 2, "mixed": "007", "new": True, "list": None}, {"n": 3, "mixed": 2**70}]
    rows[0] = {"n": 1, "mixed": 1.723286, "list": ["a", {"b": 1.723286}]}
    read = values(read_rows(write("rows.jsonl", rows)))
    assert read[0] == {"n": 1, "mixed": 1.723286, "list": ["a", {"b": 1.723286}], "new": None}
    assert read[1] == {"n": 1, "mixed": 1, "list": ["a", {"b": None}], "new": None}
    assert read[1500] == {"n": 2, "mixed": "007", "list": None, "new": True}
    assert str(read[1501]["mixed"]) == str(2**70)


def test_a_list_of_texts_is_a_column_of_texts(write):
    assert values(read_rows(write("texts.json", '["one", "two"]'))) == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "", "rows.csv is empty."),
        ("blank.csv", "\n\n", "blank.csv is empty: it has no header."),
        ("rows.csv", "a,b\n", "rows.csv has a header but no rows."),
        ("rows.csv", "a,b\n1,2\n\n1,2,3\n", "rows.csv, row 2 (line 4): 3 values for 2 columns."),
        ("rows.csv", 'a,b\n1,"2\n3', "rows.csv, row 1 (up to line 3): a quote opened in this row is never closed."),
        ("rows.csv", 'a,b\n1,"2"3\n', "rows.csv, row 1 (up to line 2): ',' expected after '\"'."),
        ("rows.csv", "a,b,a\n1,2,3\n", "rows.csv: the column name 'a' occurs 2 times."),
        (
            "rows.csv",
            "a,b\n1,2\n3,caf\u00e9\n".encode("latin-1"),
            "rows.csv is not UTF-8 text: byte 0xE9 at position 13 (line 3) cannot be decoded.",
        ),
        ("rows.json", "[]", "rows.json holds no rows."),
        ("rows.json", " \n", "rows.json is empty."),
        ("rows.json", '[{"a": 1},\n {"a": 2,}]', "rows.json: invalid JSON at line 2, column "),
        ("rows.json", '{"a": 1}', "rows.json holds no table."),
        ("rows.json", "3", "rows.json holds no table."),
        ("rows.json", '{"a": [1, 2], "b": [1]}', "rows.json: the columns differ in length (a 2, b 1)."),
        ("rows.json", '[{"a": 1}, [2]]', "rows.json, row 2 is a list, not an object."),
        ("rows.json", b'[{"a": "\xff"}]', "rows.json is not UTF-8 text: byte 0xFF at position 8 (line 1)"),
        ("rows.jsonl", '{"a": 1}\n\n{"a": }\n', "rows.jsonl: invalid JSON at line 3, column 7: expecting value."),
        ("rows.jsonl", '{"a": 1}\n"text"\n', "rows.jsonl, row 2 is a text, not an object."),
        ("rows.jsonl", '{"a": 1, "a": 2}\n', "rows.jsonl, line 1: an object names 'a' twice."),
        ("rows.jsonl", b'{"a": "ok"}\n{"a": "\xc3("}\n', "byte 0xC3 at position 19 (line 2) cannot be decoded."),
        ("rows.jsonl", '{"a": "\\ud83d"}\n', "rows.jsonl, row 1, column 'a': half a character (\\ud83d)."),
        ("rows.jsonl", "[" * 100_000, "rows.jsonl is nested too deeply."),
        ("rows.json", "[" * 100_000, "rows.json is nested too deeply."),
        ("rows.parquet", "not parquet at all", "rows.parquet is not a Parquet file, or is damaged: "),
        ("rows.xlsx", "x", "rows.xlsx is of an unknown kind (.xlsx)."),
        ("rows", "x", "rows is of an unknown kind (no extension)."),
    ],
)
def test_a_bad_file_is_told_in_one_sentence_with_the_place(write, name, content, message):
    with pytest.raises(StudioError) as told:
        read_rows(write(name, content))
    assert message in told.value.message
    assert told.value.category == "data"
    assert told.value.hint


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(StudioError, match=r"There is no file .*nowhere\.csv\."):
        read_rows(str(tmp_path / "nowhere.csv"))
    with pytest.raises(StudioError, match="is a folder"):
        read_rows(str(tmp_path))


@pytest.mark.parametrize("source", ["x" * 4000, "~nobody_here/rows.csv", "a\0b.csv", " "])
def test_what_cannot_be_a_path(source):
    with pytest.raises(StudioError) as told:
        read_rows(source)
    assert told.value.category == "data"


def test_an_unknown_sample_lists_the_known_ones():
    with pytest.raises(StudioError, match=r"no sample named 'restaurant'\. Known samples: .*restaurants.*reviews"):
        read_rows("sample:restaurant")
    assert len(read_rows("sample:restaurants")) == 400


def test_samples_are_listed_without_the_libraries_of_training():
    script = (
        "import sys; from prefix_studio.data.samples import list_samples; assert list_samples();"
        "sys.exit(bool({'torch', 'datasets', 'transformers', 'pyarrow'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert {"name", "title", "summary"} == set(list_samples()[0])


@pytest.mark.parametrize(
    ("source", "category", "message"),
    [
        ("hub:squad", "network", "The Hub cannot be reached, so squad cannot be loaded."),
        ("hub:../secrets", "data", "There is no data set ../secrets on the Hub"),
    ],
)
def test_the_hub_out_of_reach(source, category, message):
    with pytest.raises(StudioError) as told:  # tests run with HF_HUB_OFFLINE=1
        read_rows(source)
    assert told.value.category == category
    assert message in told.value.message


def test_a_file_is_parsed_once_and_a_changed_file_again(write, home, monkeypatch):
    path = write("rows.csv", "a\n1\n")
    assert values(read_rows(path)) == [{"a": "1"}]
    monkeypatch.setattr("prefix_studio.data.cache.parse", lambda _: pytest.fail("parsed again"))
    assert values(read_rows(path)) == [{"a": "1"}]
    monkeypatch.undo()
    monkeypatch.setenv("PREFIX_STUDIO_HOME", str(home.home))
    write("rows.csv", "a\n2\n")
    assert values(read_rows(path)) == [{"a": "2"}]


def test_a_bad_row_leaves_nothing_in_the_cache(write, home):
    with pytest.raises(StudioError):
        read_rows(write("rows.csv", "a,b\n" + "1,2\n" * 3000 + "1\n"))
    assert list((home.home / "cache" / "rows").iterdir()) == []
