"""``secondsight report``, and ``top --mark``: a page of a recording; any other file is told apart."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondsight.cli import main
from support.host_recordings import record


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return end.value.code, out.out, out.err


def test_a_page_beside_the_recording(tmp_path, capsys):
    record(tmp_path / "host.parquet")
    code, out, _ = run(capsys, "report", tmp_path / "host.parquet")
    assert code == 0
    assert "Most grew grows, by 110.0 MiB" in out
    assert (tmp_path / "host.html").read_text().startswith("<!doctype html>")


def test_what_is_marked_is_in_the_page(tmp_path, capsys):
    path = tmp_path / "host.parquet"
    record(path, marked=False)
    code, out, _ = run(capsys, "top", "--record", path, "--mark", "a new kernel")
    assert (code, out) == (0, f"marked in {path}: a new kernel\n")
    run(capsys, "report", path, "-o", tmp_path / "page.html")
    assert "a new kernel" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "is a directory; a sweep's: `secondsight compare"),
        (lambda path: path.write_text(json.dumps({"schema": 1})), "is JSON; results of a comparison"),
        (lambda path: path.write_bytes(b""), "no recording of the host"),
        (lambda path: path.write_bytes(b"PAR1 torn"), "torn, or no recording"),
        (lambda path: write(path, {}), "no recording of the host; `secondsight top"),
        (lambda path: write(path, {"secondsight.trace": "{}"}), "is a trace: `secondsight compare"),
        (
            lambda path: write(path, {"secondsight.kind": "khugepaged-decisions"}),
            "secondsight watch --record",
        ),
        (lambda path: write(path, {"secondsight.kind": "secondsight.host"}), "of another version"),
    ],
)
def test_another_file_is_told_apart(tmp_path, capsys, make, problem):
    path = tmp_path / "other"
    make(path)
    code, out, err = run(capsys, "report", path, "-o", tmp_path / "page.html")
    assert (code, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("path", [".", "/", ".."])
def test_a_directory_without_a_name_is_one_line(capsys, path):
    code, _, err = run(capsys, "report", path)
    assert code == 2 and err.count("\n") == 1 and "is a directory" in err


def test_a_mark_goes_to_a_recording_alone(tmp_path, capsys):
    for content in (b"", b"PAR1 torn", b"{}"):
        (tmp_path / "other").write_bytes(content)
        code, out, err = run(capsys, "top", "--record", tmp_path / "other", "--mark", "now")
        assert (code, out) == (2, "") and err.count("\n") == 1 and "no recording of the host" in err
    assert [each.name for each in tmp_path.iterdir()] == ["other"]


def write(path, metadata):
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(metadata), path)


def test_a_page_that_cannot_be_written_is_told(tmp_path, capsys):
    record(tmp_path / "host.parquet")
    code, _, err = run(capsys, "report", tmp_path / "host.parquet", "-o", tmp_path / "host.parquet")
    assert code == 2 and "is what is read" in err
    code, _, err = run(capsys, "top", "--mark", "x")
    assert code == 2 and "of which recording" in err
