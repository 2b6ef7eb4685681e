#!/bin/sh
# Run benchmarks and write docs/benchmarks.md: run.sh [PART ...] with parts sizes rate coding roofline speed lossless pareto anatomy second_order memory scaling,
# and others by the name of their module; all of these by default. Needs benchmarks/networks/setup.sh and benchmarks/peers/setup.sh (peers that are missing are left out).
set -eu
cd "$(dirname "$0")/.."
python=benchmarks/.venv/bin/python
export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore
"$python" -m pip install --quiet --disable-pip-version-check scikit-build-core nanobind
"$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
[ $# -gt 0 ] || set -- sizes rate coding roofline speed lossless pareto anatomy second_order memory scaling
for part in "$@"; do
    "$python" -m "benchmarks.$part"
done
"$python" -m benchmarks.report
