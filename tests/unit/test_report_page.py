"""`tersor report`: one page that needs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import array_unit, container

import tersor
from tersor.cli import main
from tersor.methods import keep
from tersor.report import Report, charts, details, page

VOID = {"meta", "line", "rect"}


class Checked(HTMLParser):
    """Tags are closed in order; texts, tags and what attributes refer to are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_of_a_file(compressed: dict[int, tuple[Path, Report]], tmp_path: Path) -> None:
    path, report = compressed[8]
    out = tmp_path / "report.html"
    main_quietly(["report", str(path), "-o", str(out)])
    text = out.read_text()
    parsed = Checked(text)
    assert text.isascii() and "script" not in parsed.tags and parsed.tags.count("svg") == 3
    assert not [v for k, v in parsed.attributes if k in ("src", "href", "xlink:href")] and "url(" not in text
    assert f"{report.file_bytes:,}" in parsed.texts and f"{report.ratio:.2f}x" in parsed.texts
    for row in report.tensors:
        assert row.name in parsed.texts


def test_details_are_those_of_the_decoded_weights(compressed: dict[int, tuple[Path, Report]]) -> None:
    path, report = compressed[8]
    weights = tersor.load(path)
    with tersor.open(path) as file:
        same, found = details.measure(file)
    assert same == report
    assert {d.row.name for d in found} == {r.name for r in report.tensors if r.op != "tie"}
    for d in found:
        assert d.zeros == pytest.approx(1 - np.count_nonzero(weights[d.row.name]) / weights[d.row.name].size)
        assert sum(d.parts.values()) == d.row.nbytes
        assert d.quantized == (d.row.op == "uniform")


def test_every_dtype_and_empty_tensors() -> None:
    arrays = [np.array([0, -0.0, 2, 0], t) for t in (np.float16, np.float32, np.float64)]
    arrays += [np.array([0, 1, 0, 0], t) for t in (np.int8, np.uint8, np.int64, np.bool_)]
    arrays += [np.array([0, 0, 0, least], t) for t, least in ((np.uint8, 128), (np.int64, -(2**63)))]  # top bits alone
    arrays += [np.array([0, -0.0, 0, 1j], np.complex64), np.zeros((0, 3), "<f4")]
    units = [array_unit(str(k), a) for k, a in enumerate(arrays)]
    with tersor.open(container(*(keep.lossless(u, u.load()) for u in units))) as file:
        report, found = details.measure(file)
        assert [d.zeros for d in found] == [0.75] * 10 + [0.0]
        Checked(page.html(report, found, "m.tsr"))


def test_names_and_notes_are_escaped() -> None:
    evil = '</title><script>alert("&")</script>'
    unit = array_unit(evil, np.zeros(2, np.float32))
    meta = {"recipe": {evil: evil, "method": 3.5}, "tersor": evil, "budget": evil}
    with tersor.open(container(keep.lossless(unit, unit.load()), meta=meta)) as file:
        parsed = Checked(page.html(*details.measure(file), evil))
    assert "script" not in parsed.tags and parsed.texts.count(evil) >= 4


def test_a_file_without_tensors_or_notes() -> None:
    with tersor.open(container()) as file:
        text = page.html(*details.measure(file), "empty.tsr")
    assert "0 tensors" in text and "<svg" not in text
    Checked(text)


def test_json(compressed: dict[int, tuple[Path, Report]], capsys: pytest.CaptureFixture[str]) -> None:
    path, report = compressed[8]
    main_quietly(["report", str(path), "--json"])
    data = json.loads(capsys.readouterr().out)
    assert data["file_bytes"] == report.file_bytes
    assert sum(sum(d["parts"].values()) for d in data["details"]) == sum(r.nbytes for r in report.tensors)


def test_wrong_usage(
    compressed: dict[int, tuple[Path, Report]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(compressed[8][0])
    with pytest.raises(SystemExit) as stopped:
        main(["report", path])
    assert stopped.value.code == 2 and "--json" in capsys.readouterr().err
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(["report", path, "-o", str(tmp_path / "r.html")])
    assert stopped.value.code != 0 and (tmp_path / "r.html").read_text() == "mine"


def test_works_without_torch(compressed: dict[int, tuple[Path, Report]], tmp_path: Path) -> None:
    script = "import sys; sys.modules['torch'] = None; from tersor.cli import main; main(['report', *sys.argv[1:]])"
    subprocess.run(
        [sys.executable, "-c", script, str(compressed[8][0]), "-o", str(tmp_path / "r.html")], check=True, timeout=120
    )
    assert (tmp_path / "r.html").stat().st_size > 1000


@pytest.mark.parametrize(("most", "top", "step"), [(10.6, 15, 5), (7.4, 8, 2), (8.0, 8, 2), (0.9, 1.0, 0.25)])
def test_axes_end_at_round_numbers(most: float, top: float, step: float) -> None:
    assert charts._axis(most) == pytest.approx((top, step))


def test_ticks_are_few() -> None:
    assert charts._ticks(0) == [] and charts._ticks(1) == [1] and charts._ticks(11) == list(range(1, 12))
    assert charts._ticks(35) == [1, 5, 10, 15, 20, 25, 30, 35]
    assert all(len(charts._ticks(n)) <= 13 for n in (100, 999, 5000))


def main_quietly(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as stopped:
        assert not stopped.code
