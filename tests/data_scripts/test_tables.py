import re

import pytest

from audiopg.data_scripts.own_recordings import load_recordings
from audiopg.data_scripts.tables import read_table

TABLE = "file,label\na.wav,écureuil\nb.wav,chat\n"
EXPECTED = [{"file": "a.wav", "label": "écureuil"}, {"file": "b.wav", "label": "chat"}]


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
        TABLE.encode("utf-16-le"),
        TABLE.encode("utf-16-be"),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.replace(",", " | ").encode(),
        TABLE.replace(",", ", ").encode(),
        TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
        TABLE.replace("\n", "\r").encode(),
        TABLE.rstrip().encode(),
        TABLE.replace("file,label", " File , LABEL ").encode(),
        ("sep=;\r\n" + TABLE.replace(",", ";")).encode(),
        ("\n" + TABLE.replace("\n", "\n\n")).encode(),
        TABLE.replace("\n", ",,\n").encode(),
        (TABLE + ",\n , \n").encode(),
        TABLE.replace("chat", '"chat"').encode(),
    ],
)
def test_one_table_reads_alike_in_every_dialect(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    rows = read_table(tmp_path / "t.csv", ("file", "label"))
    assert [{name: row[name] for name in ("file", "label")} for row in rows] == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.encode("latin-1"), r"t\.csv is no text in UTF-8 or UTF-16: line 2 has the byte 0xe9"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xff\xfe", r"t\.csv is no t.*save it as CSV|Save it as CSV"),
        (b"", r"t\.csv must have rows .* it has 0 rows with the columns \[\]"),
        (b"file,label\n", "has 0 rows with the columns"),
        (b"name,kind\na,b\n", r"t\.csv must have rows .* with the columns \['name', 'kind'\], and lacks \['file'"),
        (b"file,label\na.wav\n", r"Row 2 of .*t\.csv has nothing in label: \['a\.wav', ''\]"),
        (b"file,label\na.wav,  \n", "Row 2 of .* has nothing in label"),
        (b"file,label\n\n,cat\n", "Row 3 of .* has nothing in file"),
        (b"file,label\na.wav,cat,dog\n", "Row 2 of .* has 3 cells, and there are 2 columns"),
        (b"file,label,Label\na.wav,cat,dog\n", r"\['label'\] come twice"),
        (b'file,label\n"a.wav,cat\n', "Row 2 of .* cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file_and_row(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(tmp_path / "t.csv", ("file", "label"))
    assert "official" not in str(caught.value)


def test_a_published_table_is_to_be_the_official_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="official archive"):
        read_table(tmp_path / "t.csv", ("file",), "a folder holds t.csv")
    (tmp_path / "t.csv").write_text("name\na\n")
    with pytest.raises(ValueError, match="Use the official file"):
        read_table(tmp_path / "t.csv", ("file",), "a folder holds t.csv")


@pytest.mark.parametrize("column", ["file", "file_name", "filename", "path", "File Name", "FILE-PATH"])
def test_the_column_of_files_is_found_by_any_of_its_names(tmp_path, column):
    for name in "abcd":
        (tmp_path / f"{name}.wav").touch()
    (tmp_path / "t.csv").write_text(f"Class;{column}\n" + "".join(f"{n > 'b'};{n}.wav\n" for n in "abcd"))
    dataset = load_recordings(tmp_path / "t.csv")
    assert dataset.features["label"].names == ["False", "True"]
    assert [re.sub(".*/", "", path) for path in dataset["audio"]] == ["a.wav", "b.wav", "c.wav", "d.wav"]
