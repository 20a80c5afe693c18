"""Folders and manifests become records; nothing is decoded here, so the pictures are empty files."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from qdrant_cir.errors import InputError, MissingExtraError
from qdrant_cir.indexing.sources import ImageRecord, RejectedRow, read_folder, read_images, read_manifest, sample_images
from qdrant_cir.types import JsonObject


def touch(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def payloads(path: Path) -> list[JsonObject]:
    return [record.payload for record in read_manifest(path) if isinstance(record, ImageRecord)]


def rejected(path: Path) -> list[RejectedRow]:
    return [record for record in read_manifest(path) if isinstance(record, RejectedRow)]


class TestFolder:
    def test_pictures_come_sorted_from_all_depths_and_nothing_else_comes(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "b.PNG",
            "a/2.jpg",
            "a/1.jpeg",
            "a/deep/3.webp",
            "notes.txt",
            ".hidden.jpg",
            ".git/4.jpg",
        )
        ids = [record.image_id for record in read_folder(tmp_path)]
        assert ids == ["a/1.jpeg", "a/2.jpg", "a/deep/3.webp", "b.PNG"]

    def test_folder_names_become_a_filterable_field(self, tmp_path: Path) -> None:
        touch(tmp_path, "1.jpg", "dress/1.jpg", "summer/dress/1.jpg")
        assert [record.payload for record in read_folder(tmp_path)] == [
            {"file": "1.jpg"},
            {"file": "dress/1.jpg", "folder": "dress"},
            {"file": "summer/dress/1.jpg", "folder": ["summer", "dress"]},
        ]

    def test_the_source_is_the_absolute_path_however_the_folder_was_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "photos/1.jpg")
        monkeypatch.chdir(tmp_path)
        (record,) = read_folder("photos")
        assert record.source == record.image == str(tmp_path / "photos" / "1.jpg")

    def test_a_folder_without_pictures_is_refused(self, tmp_path: Path) -> None:
        touch(tmp_path, "notes.txt")
        with pytest.raises(InputError, match=r"no image in .*\.jpg"):
            read_folder(tmp_path)

    def test_a_missing_path_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere is not a folder"):
            read_folder(tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"nowhere does not exist.*\.csv"):
            read_images(tmp_path / "nowhere")

    def test_pictures_by_every_promised_suffix_are_read_and_the_others_are_counted(self, tmp_path: Path) -> None:
        pictures = ["a.jfif", "b.jpe", "c.apng", "d.mpo", "e.tga", "f.pgm", "g.j2k", "h.HEIC"]
        touch(tmp_path, *pictures, "notes.txt", "sub/more.TXT", "raw.psd", "README", ".hidden.txt")
        folder = read_folder(tmp_path)
        assert [record.image_id for record in folder] == pictures
        assert folder.skipped == {"": 1, ".psd": 1, ".txt": 2}

    def test_a_folder_is_a_sequence(self, tmp_path: Path) -> None:
        touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
        folder = read_folder(tmp_path)
        assert len(folder) == 3
        assert [folder[0].image_id, *(record.image_id for record in folder[1:])] == ["1.jpg", "2.jpg", "3.jpg"]


class TestCsv:
    def test_a_quotation_mark_that_is_never_closed_loses_its_own_row_alone(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", 'file,size\n1.png,small\n2.png,"24 inch\n3.png,large\n4.png,small\n')
        (row,) = rejected(manifest)
        assert row.place == "m.csv line 3"
        assert "quotation mark" in row.reason
        assert payloads(manifest) == [{"size": "small"}, {"size": "large"}, {"size": "small"}]

    def test_two_of_them_lose_their_rows_and_not_what_stands_between(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", 'file,size\n1.png,"24 inch\n2.png,S\n3.png,"30 inch\n4.png,L\n')
        assert [row.place for row in rejected(manifest)] == ["m.csv line 2", "m.csv line 4"]
        assert payloads(manifest) == [{"size": "S"}, {"size": "L"}]

    def test_marks_inside_one_line_are_read_as_before(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", 'file,size\n1.png,"24" inch\n2.png,24" inch\n3.png,"a ""b"""\n')
        assert [payload["size"] for payload in payloads(manifest)] == ["24 inch", '24" inch', 'a "b"']

    def test_long_cells_are_read_by_the_same_rules(self, tmp_path: Path) -> None:
        long = "x" * 140_000
        rows = (
            f"1.png,{long},1\r\n",
            f'2.png,"{long}, ""y""\nz",2\n',
            f'3.png,"{long}"z,3\n',
            f'4.png,"{long}\n',
            "5.png,short,5\n",
            f'6.png,"{long}\n',
            '7.png,b"c,7\n',
            "8.png,last,8",
        )
        manifest = write(tmp_path / "m.csv", "file,text,n\n" + "".join(rows))
        texts = [payload["text"] for payload in payloads(manifest)]
        assert texts == [long, f'{long}, "y"\nz', f"{long}z", "short", 'b"c', "last"]
        assert [row.place for row in rejected(manifest)] == ["m.csv line 6", "m.csv line 8"]

    def test_an_open_mark_in_a_long_file_takes_no_time(self, tmp_path: Path) -> None:
        text = "file,size\n" + '1.png,"24 inch\n' + "".join(f"{n}.png,S\n" for n in range(2, 40_000))
        started = time.monotonic()
        assert len(payloads(write(tmp_path / "m.csv", text))) == 39_998
        assert time.monotonic() - started < 10

    def test_columns_are_typed_as_a_whole(self, tmp_path: Path) -> None:
        manifest = write(
            tmp_path / "m.csv",
            "file,count,price,on_sale,article,mixed,big\n"
            "1.jpg,3,19.90,true,0012,5,1\n"
            "2.jpg,-4,20,False,0013,five,99999999999999999999\n",
        )
        assert payloads(manifest) == [
            {"count": 3, "price": 19.9, "on_sale": True, "article": "0012", "mixed": "5", "big": "1"},
            {
                "count": -4,
                "price": 20.0,
                "on_sale": False,
                "article": "0013",
                "mixed": "five",
                "big": "99999999999999999999",
            },
        ]
        assert [type(payload["price"]) for payload in payloads(manifest)] == [float, float]

    def test_words_that_python_reads_as_numbers_stay_strings(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", "file,a,b,c\n1.jpg,nan,inf,1_000\n")
        assert payloads(manifest) == [{"a": "nan", "b": "inf", "c": "1_000"}]

    def test_an_empty_cell_is_an_absent_field_and_does_not_change_the_type(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", "file,count\n1.jpg,3\n2.jpg,\n")
        assert payloads(manifest) == [{"count": 3}, {}]

    def test_ids_and_files_are_never_numbers(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", "image_id,file\n7,10\n")
        (record,) = read_manifest(manifest)
        assert record == ImageRecord("7", str(tmp_path / "10"), {}, str(tmp_path / "10"))

    def test_the_file_names_the_picture_where_no_id_does(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", "image_id,image\n,sub/1.jpg\nB,/data/2.jpg\n")
        assert [(r.image_id, r.source) for r in read_manifest(manifest) if isinstance(r, ImageRecord)] == [
            ("sub/1.jpg", str(tmp_path / "sub/1.jpg")),
            ("B", "/data/2.jpg"),
        ]

    def test_a_bad_row_is_reported_by_its_first_line_and_the_rest_is_read(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.csv", 'file,note\n1.jpg,"two\nlines"\n2.jpg\n,empty\n\n3.jpg,ok\n')
        assert rejected(manifest) == [
            RejectedRow("m.csv line 4", "1 values for 2 columns"),
            RejectedRow("m.csv line 5", "expected a file name in 'file', got None"),
        ]
        assert payloads(manifest) == [{"note": "two\nlines"}, {"note": "ok"}]

    def test_spreadsheet_exports_with_a_byte_order_mark_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbffile,note\r\n1.jpg,x\r\n")
        assert payloads(tmp_path / "m.csv") == [{"note": "x"}]

    def test_text_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "m.csv").write_bytes("file,note\n1.jpg,Grün\n".encode("latin-1"))
        with pytest.raises(InputError, match="not UTF-8"):
            read_manifest(tmp_path / "m.csv")

    def test_columns_without_names_of_their_own_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="a name of its own"):
            read_manifest(write(tmp_path / "m.csv", "file,a,a\n1.jpg,1,2\n"))

    def test_the_length_counts_all_rows_and_reading_can_be_repeated(self, tmp_path: Path) -> None:
        manifest = read_manifest(write(tmp_path / "m.csv", "file,a\n1.jpg,1\n2.jpg\n3.jpg,3\n"))
        assert len(manifest) == 3
        assert list(manifest) == list(manifest)


class TestJsonLines:
    def test_json_is_kept_as_it_is(self, tmp_path: Path) -> None:
        fields = {"tags": ["a", "b"], "size": {"cm": 1.5}, "n": 1, "sale": True, "none": None, "code": "01"}
        manifest = write(tmp_path / "m.jsonl", json.dumps({"file": "1.jpg", **fields}) + "\n")
        assert payloads(manifest) == [fields]

    def test_integer_ids_are_taken_as_strings(self, tmp_path: Path) -> None:
        manifest = write(tmp_path / "m.jsonl", '{"file": "1.jpg", "image_id": 12}\n')
        assert [r.image_id for r in read_manifest(manifest) if isinstance(r, ImageRecord)] == ["12"]

    def test_bad_lines_are_reported_by_number_and_reason(self, tmp_path: Path) -> None:
        lines = [
            "{",
            "[1]",
            '{"file": 3}',
            '{"file": "1.jpg", "image_id": true}',
            '{"file": "2.jpg", "x": NaN}',
        ]
        manifest = write(tmp_path / "m.jsonl", "\n".join(['{"file": "0.jpg"}', "", *lines]))
        rows = rejected(manifest)
        assert [row.place for row in rows] == [f"m.jsonl line {number}" for number in (3, 4, 5, 6, 7)]
        assert [row.reason[:24] for row in rows] == [
            "not JSON: Expecting prop",
            "expected a JSON object, ",
            "expected a file name in ",
            "expected a string or an ",
            "a value of type float (n",
        ]

    @pytest.mark.parametrize(
        ("value", "word"),
        [
            ("7" * 5_000, "not JSON"),
            ("[" * 600 + "]" * 600, "nested"),
            ("[" * 100_000, "not JSON"),
            ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64"),
        ],
    )
    def test_numbers_and_nesting_without_end_lose_their_own_row_alone(
        self, tmp_path: Path, value: str, word: str
    ) -> None:
        manifest = write(tmp_path / "m.jsonl", f'{{"file": "1.png", "n": {value}}}\n{{"file": "2.png"}}\n')
        (row,) = rejected(manifest)
        assert row.place == "m.jsonl line 1"
        assert word in row.reason
        assert payloads(manifest) == [{}]

    @pytest.mark.parametrize("cells", [r'"file": "\ud800.png"', r'"file": "1.png", "image_id": "\udcff"'])
    def test_names_that_are_no_unicode_text_are_reported_in_words_that_can_be_written(
        self, tmp_path: Path, cells: str
    ) -> None:
        manifest = write(tmp_path / "m.jsonl", f'{{{cells}}}\n{{"file": "2.png"}}\n')
        (row,) = rejected(manifest)
        assert "not valid Unicode" in row.reason
        assert row.reason.encode()
        assert len(payloads(manifest)) == 1


class TestParquet:
    def test_timestamps_of_nanoseconds_are_text(self, tmp_path: Path) -> None:
        stamps = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns"))
        parquet.write_table(pa.table({"file": ["1.jpg", "2.jpg"], "at": stamps}), tmp_path / "m.parquet")
        assert payloads(tmp_path / "m.parquet") == [
            {"at": "2023-11-14T22:13:20.123456789"},
            {"at": "2023-11-14T22:13:20"},
        ]

    def test_values_that_python_cannot_hold_lose_their_own_row_alone(self, tmp_path: Path) -> None:
        days = pa.array([2**31 - 1, 0, 0], pa.int32()).cast(pa.date32())
        notes = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
        manifest = tmp_path / "m.parquet"
        parquet.write_table(pa.table({"file": ["1.jpg", "2.jpg", "3.jpg"], "day": days, "note": notes}), manifest)
        assert [row.place for row in rejected(manifest)] == ["m.parquet row 1", "m.parquet row 2"]
        assert ["'day'" in rejected(manifest)[0].reason, "'note'" in rejected(manifest)[1].reason] == [True, True]
        assert payloads(manifest) == [{"day": "1970-01-01", "note": "fine"}]

    def test_a_damaged_row_group_is_reported_and_the_others_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "m.parquet"
        names = [f"{n}.jpg" for n in range(30)]
        parquet.write_table(
            pa.table({"file": names}), file, row_group_size=10, compression="none", use_dictionary=False
        )
        content = bytearray(file.read_bytes())
        with parquet.ParquetFile(file) as opened:
            start = opened.metadata.row_group(1).column(0).data_page_offset
        content[start : start + 20] = b"\xff" * 20
        file.write_bytes(content)
        (row,) = rejected(file)
        assert row.place == "m.parquet row 11"
        assert "rows 11 to 20 cannot be read" in row.reason
        assert [r.image_id for r in read_manifest(file) if isinstance(r, ImageRecord)] == names[:10] + names[20:]

    def test_columns_of_one_name_are_refused(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array(["1.jpg"]), pa.array([1]), pa.array([2])], names=["file", "a", "a"])
        parquet.write_table(table, tmp_path / "m.parquet")
        with pytest.raises(InputError, match="a name of its own"):
            read_manifest(tmp_path / "m.parquet")

    def write(self, path: Path, columns: dict[str, list[object]]) -> Path:
        parquet.write_table(pa.table(columns), path)
        return path

    def test_types_are_kept_and_nulls_are_absent(self, tmp_path: Path) -> None:
        manifest = self.write(
            tmp_path / "m.parquet",
            {
                "file": ["1.jpg", "2.jpg"],
                "count": [3, None],
                "price": [1.5, float("nan")],
                "sale": [True, False],
                "day": [date(2024, 2, 29), None],
                "tags": [["a"], []],
            },
        )
        assert payloads(manifest) == [
            {"count": 3, "price": 1.5, "sale": True, "day": "2024-02-29", "tags": ["a"]},
            {"sale": False, "tags": []},
        ]

    def test_an_image_column_may_hold_the_files_themselves(self, tmp_path: Path) -> None:
        manifest = self.write(tmp_path / "m.parquet", {"image": [{"bytes": b"PNG", "path": "1.png"}], "n": [1]})
        assert list(read_manifest(manifest)) == [ImageRecord("1.png", b"PNG", {"n": 1}, None)]

    def test_bytes_without_any_name_are_reported(self, tmp_path: Path) -> None:
        manifest = self.write(tmp_path / "m.parquet", {"image": [b"PNG"]})
        (row,) = rejected(manifest)
        assert row.place == "m.parquet row 1"
        assert "'image_id', got None" in row.reason

    def test_another_file_with_that_suffix_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a Parquet file"):
            read_manifest(write(tmp_path / "m.parquet", "file\n1.jpg\n"))

    def test_without_pyarrow_the_message_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest = self.write(tmp_path / "m.parquet", {"file": ["1.jpg"]})
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r'pip install "qdrant-cir\[parquet\]"'):
            read_manifest(manifest)


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("m.csv", "file,image_id\n1.jpg,A\n2.jpg,B\n3.jpg,A\n", "lines 2 and 4"),
        ("m.jsonl", '{"file": "1.jpg"}\n\n{"file": "1.jpg"}\n', "lines 1 and 3"),
    ],
)
def test_an_id_given_twice_is_refused_with_both_lines(tmp_path: Path, name: str, text: str, places: str) -> None:
    with pytest.raises(InputError, match=places):
        read_manifest(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("m.csv", "path;title\n1.jpg;x\n", "path;title"),
        ("m.jsonl", '{"path": "1.jpg", "title": 1}', "path, title"),
    ],
)
def test_a_manifest_without_a_file_column_is_refused_with_its_columns(
    tmp_path: Path, name: str, text: str, columns: str
) -> None:
    with pytest.raises(InputError, match=f"columns are: {columns}"):
        read_manifest(write(tmp_path / name, text))


def test_a_manifest_without_rows_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        read_manifest(write(tmp_path / "m.csv", "file\n"))
    with pytest.raises(InputError, match=r"ending in \.csv"):
        read_manifest(write(tmp_path / "m.xlsx", "file\n"))


@pytest.mark.parametrize(("count", "names"), [(3, ["0", "3", "6"]), (10, list("0123456789")), (99, list("0123456789"))])
def test_a_sample_is_spread_over_the_folder(tmp_path: Path, count: int, names: list[str]) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    assert [Path(record.image_id).stem for record in sample_images(tmp_path, count)] == names
