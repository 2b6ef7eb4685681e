"""What README states was measured: its tables are those of the checked-in results."""

from __future__ import annotations

import re

from benchmarks.common import ROOT, read_results
from benchmarks.report.readme import README, updated


def test_tables_are_those_of_the_results() -> None:
    text = README.read_text()
    assert updated(text) == text, "run python -m benchmarks.report"


def test_sizes_outside_the_tables_were_measured_too() -> None:
    """Every number of bytes that README prints is in the results of `sizes`."""
    known = {r[key] for r in read_results("sizes")[1] for key in ("bytes", "source_bytes") if key in r}
    stated = {int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:B\b|bytes)", README.read_text()) if "," in n}
    assert stated
    assert stated <= known


def test_ratios_of_lossless_coding_were_measured() -> None:
    ratios = {f"{r['ratio']:.3f}" for r in read_results("lossless")[1] if r["tool"] == "tersor" and "ratio" in r}
    sentence = re.search(r"Lossless: MiniLM ([\d.]+)x in float32, ([\d.]+)x in bfloat16", README.read_text())
    assert sentence
    assert set(sentence.groups()) <= ratios


def test_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text())
    assert pictures
    assert all((ROOT / picture).exists() for picture in pictures)
