#!/bin/sh
# Run benchmarks and write docs/benchmarks.md: run.sh [PART[:NETWORK,...] ...], a part being a module of this folder; all of
# those below by default. Needs benchmarks/networks/setup.sh and benchmarks/peers/setup.sh (missing peers are left out).
set -eu
cd "$(dirname "$0")/.."
python=benchmarks/.venv/bin/python
export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore
"$python" -m pip install --quiet --disable-pip-version-check scikit-build-core nanobind
"$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
[ $# -gt 0 ] || set -- pareto sizes second_order l2_ratios l2_tables joint_cost anatomy lossless speed memory scaling coding rate roofline
for part in "$@"; do
    networks=$(echo "$part" | sed -n 's/.*://p' | tr , ' ')
    "$python" -m "benchmarks.${part%%:*}" $networks
done
"$python" -m benchmarks.report
