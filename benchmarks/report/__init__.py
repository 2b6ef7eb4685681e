"""docs/benchmarks.md from the result files. Nothing is measured here.

One module a section or a family of them: each has SECTIONS. `__main__.py` lists the modules in the order of the page.
"""
