"""A report as one HTML page that needs nothing else: no scripts, no fonts, no pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tersor.report import Report
from tersor.report.charts import bars, columns
from tersor.report.details import Details

LARGEST = 16
"""Tensors whose bytes are drawn; the others are one bar."""

STYLE = """
:root { --paper: #fff; --ink: #1d2733; --faint: #66727f; --line: #e3e8ec; --bits: #2a6fb0; --zeros: #d9822b;
  --levels: #2a6fb0; --steps: #7fb2dd; --bytes: #9aa7b3; --manifest: #c9d1d8; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171d; --ink: #e6ebf0; --faint: #93a0ad; --line: #28323c;
  --bits: #5aa2e6; --zeros: #eba35a; --levels: #5aa2e6; --steps: #33689b; --bytes: #6b7885; --manifest: #45515c; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem }
p { margin: .25rem 0; color: var(--faint) }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.5rem 0 }
.facts div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
.facts b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums }
.facts span { color: var(--faint); font-size: .85rem }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: .5rem 0 }
dt { color: var(--faint) } dd { margin: 0; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: auto; margin: .5rem 0 1rem }
svg text { fill: var(--faint); font: 12px system-ui, sans-serif }
svg .name { fill: var(--ink) } svg .grid { stroke: var(--line) } svg rect:hover { opacity: .7 }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin: 0 .35em 0 .9em }
.key:first-child { margin-left: 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; width: 100% }
th { text-align: left; font-weight: 600; color: var(--faint) }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
@media (max-width: 40rem) { svg text { font-size: 19px } svg .name { font-size: 17px } body { padding-top: 1rem } }
"""


def html(report: Report, details: Sequence[Details], title: str) -> str:
    """The page; `title` is what the file is called. Everything a file says is escaped."""
    quantized = [d for d in details if d.quantized]
    body = [f"<h1>{escape(title)}</h1>", _made_by(report), _facts(report, quantized), _recipe(report)]
    if quantized:
        body += [
            "<h2>Bits and zeros by layer</h2>",
            "<p>Quantized tensors in the model's order: bytes in the file per weight, and the share of weights that "
            "are zero.</p>",
            _legend({"bits": "bits a weight"}),
            columns([(d.row.name, d.row.bits_per_weight) for d in quantized], "bits", "{:.2f} bits a weight"),
            _legend({"zeros": "share of zeros"}),
            columns([(d.row.name, d.zeros) for d in quantized], "zeros", "{:.1%} zeros", share=True),
        ]
    if details:
        body += [
            "<h2>Bytes</h2>",
            _legend({p: p for p in ("levels", "steps", "bytes", "manifest")}),
            _sizes(report, details),
        ]
        body += ["<h2>Tensors</h2>", _table(report, details)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _made_by(report: Report) -> str:
    tied = sum(row.op == "tie" for row in report.tensors)
    shared = f", {tied:,} of them tied" if tied else ""
    return (
        f"<p>Made by tersor {escape(str(report.meta.get('tersor', '?')))}; {len(report.tensors):,} tensors{shared}.</p>"
    )


def _facts(report: Report, quantized: Sequence[Details]) -> str:
    """The figures that matter, large."""
    facts = [
        (f"{report.file_bytes:,}", "bytes of the whole file"),
        (f"{report.ratio:.2f}x", "smaller than its tensors"),
    ]
    if report.float32_bytes != report.source_bytes:
        facts.append((f"{report.ratio_float32:.2f}x", "smaller than in float32"))
    if report.weights:
        facts.append((f"{report.bits_per_weight:.2f}", "bits a weight, all counted"))
    count = sum(_elements(d) for d in quantized)
    if count:
        zeros = sum(d.zeros * _elements(d) for d in quantized) / count
        facts.append((f"{zeros:.0%}", "of quantized weights are zero"))
    if report.snr_db is not None:
        facts.append((f"{report.snr_db:.1f} dB", "signal to noise of the weights"))
    return '<div class="facts">' + "".join(f"<div><b>{v}</b><span>{what}</span></div>" for v, what in facts) + "</div>"


def _elements(details: Details) -> float:
    return 8 * details.row.nbytes / details.row.bits_per_weight if details.row.bits_per_weight else 0.0


def _recipe(report: Report) -> str:
    """How the file was made, and what was asked of it: bytes, or a quality."""
    rows = {k: report.recipe[k] for k in sorted(report.recipe, key=lambda k: (k != "method", k))}
    rows |= {k: report.meta[k] for k in ("budget", "target") if report.meta.get(k) is not None}
    if not rows:
        return ""
    return (
        "<h2>Recipe</h2><dl>"
        + "".join(f"<dt>{escape(str(k))}</dt><dd>{_shown(v)}</dd>" for k, v in rows.items())
        + "</dl>"
    )


def _shown(value: object) -> str:
    return escape(f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value))


def _legend(colours: Mapping[str, str]) -> str:
    keys = (f'<span class="key" style="background: var(--{c})"></span>{what}' for c, what in colours.items())
    return f"<p>{''.join(keys)}</p>"


def _sizes(report: Report, details: Sequence[Details]) -> str:
    """Bytes of the largest tensors by what they hold, of the others, and of header and manifest."""
    ordered = sorted(details, key=lambda d: -d.row.nbytes)
    rows = [(d.row.name, d.parts) for d in ordered[:LARGEST]]
    others = ordered[LARGEST:]
    if others:
        total = dict[str, int]()
        for d in others:
            for part, size in d.parts.items():
                total[part] = total.get(part, 0) + size
        rows.append((f"{len(others):,} smaller tensors", total))
    rows.append(("header and manifest", {"manifest": report.overhead_bytes}))
    return bars(rows)


def _table(report: Report, details: Sequence[Details]) -> str:
    """All tensors in the model's order."""
    numeric = ("bytes", "of file", "bits", "zeros")
    head = "".join(f"<th>{t}</th>" for t in ("tensor", "shape", "dtype", "op", "coders"))
    head += "".join(f'<th class="n">{t}</th>' for t in numeric)
    known, rows = {d.row.name: d for d in details}, list[str]()
    for row in report.tensors:
        cells = [row.name, " x ".join(map(str, row.shape)) or "scalar", row.dtype, row.op, " ".join(row.coders)]
        figures = [""] * len(numeric)
        if row.name in known:
            share = row.nbytes / report.file_bytes
            zeros = f"{known[row.name].zeros:.1%}" if known[row.name].quantized else ""
            figures = [f"{row.nbytes:,}", f"{share:.1%}", f"{row.bits_per_weight:.2f}", zeros]
        text = "".join(f"<td>{escape(c)}</td>" for c in cells) + "".join(f'<td class="n">{f}</td>' for f in figures)
        rows.append(f"<tr>{text}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
