from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import Arrays, array_unit, container, model_bytes

import tersor
from tersor.methods import keep
from tersor.report import Report, text


def test_figures_of_a_file(model: Arrays, compressed: dict[int, tuple[Path, Report]]) -> None:
    path, report = compressed[8]
    size = os.path.getsize(path)
    floats = sum(a.size for n, a in model.items() if a.dtype == np.float32 and n != "head.weight")
    assert report.file_bytes == size and report.weights == floats
    assert report.source_bytes == report.float32_bytes == model_bytes(model)
    assert report.ratio == report.ratio_float32 == model_bytes(model) / size
    assert report.bits_per_weight == 8 * size / floats
    assert [t.name for t in report.tensors] == list(model)
    rows = {t.name: t for t in report.tensors}
    assert rows["head.weight"].op == "tie" and rows["head.weight"].nbytes == 0
    assert rows["embed.weight"].op == "uniform" and rows["positions"].op == "raw"
    for row in report.tensors:
        assert row.nbytes == sum(row.streams) and len(row.streams) == len(row.coders)
        if row.op != "tie":
            assert row.bits_per_weight == 8 * row.nbytes / model[row.name].size


def test_the_file_says_the_same(compressed: dict[int, tuple[Path, Report]]) -> None:
    path, report = compressed[8]
    with tersor.open(path) as file:
        assert Report.of(file.manifest, file.nbytes) == report
        assert report.meta == dict(file.meta)
    assert report.recipe["method"] == "nearest" and report.recipe["price"] > 0
    assert report.meta["budget"] == model_bytes(dict(tersor.load(path))) // 8


def test_half_precision_counts_in_its_own_size() -> None:
    unit = array_unit("h", np.zeros((10, 10), np.float16))
    with tersor.open(container(keep.lossless(unit, unit.load()))) as file:
        report = Report.of(file.manifest, file.nbytes)
    assert (report.source_bytes, report.float32_bytes, report.weights) == (200, 400, 100)
    assert report.ratio_float32 == 2 * report.ratio


def test_a_file_without_weights() -> None:
    report = Report.of(*(lambda f: (f.manifest, f.nbytes))(tersor.open(container())))
    assert math.isnan(report.bits_per_weight)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["bits_per_weight"] is None


def test_strange_notes_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    with tersor.open(container(meta={"recipe": [1], "snr_db": "loud", "tersor": None})) as file:
        report = Report.of(file.manifest, file.nbytes)
    assert report.recipe == {} and report.snr_db is None
    text.inspection(report, Path("x.tsr"), tensors=True)
    assert "0 tensors" in capsys.readouterr().out


def test_to_dict_is_json(compressed: dict[int, tuple[Path, Report]]) -> None:
    report = compressed[4][1]
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["file_bytes"] == report.file_bytes and data["ratio"] == report.ratio
    assert data["tensors"][0]["name"] == "embed.weight" and data["meta"]["recipe"]["method"] == "nearest"


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    units = [array_unit(n, np.zeros(2, np.float32)) for n in ("[bold]x[/bold]", "[/]", "ünï")]
    with tersor.open(container(*(keep.lossless(u, u.load()) for u in units))) as file:
        text.inspection(Report.of(file.manifest, file.nbytes), Path("[red]a.tsr"), tensors=True)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("[bold]x[/bold]", "[/]", "ünï", "[red]a.tsr"))


def test_progress_is_a_line_for_every_phase_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with text.progress() as progress:
        assert progress is not None
        for done in (1, 2, 3):
            progress("reading", done, 3000)
        progress("compressing", 0, 3000)
    out, errors = capsys.readouterr()
    assert out == "" and errors.splitlines() == ["reading ...", "compressing ..."]


def test_quiet_progress() -> None:
    with text.progress(quiet=True) as progress:
        assert progress is None
