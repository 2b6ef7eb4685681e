#!/bin/sh
# Create the benchmarks' environment and fetch their data: setup.sh [VENV], by default benchmarks/.venv.
# Data goes to $TERSOR_CACHE, by default ~/.cache/tersor-benchmarks. Safe to run again. $PYTHON names the interpreter (3.11).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../.venv}
debian=${TERSOR_CACHE:-$HOME/.cache/tersor-benchmarks}/debian

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet "$(grep '^torch==' "$here/../requirements.txt")"
"$venv/bin/pip" install --quiet -r "$here/../requirements.txt"
"$venv/bin/pip" install --quiet --no-deps -r "$here/packages.txt"

mkdir -p "$debian"
cd "$debian"
for package in dataset-fashion-mnist tuxpaint-stamps-default anarchism; do
    [ -d "usr/share/doc/$package" ] && continue
    apt-get download -qq "$package"
    dpkg-deb -x "$package"_*.deb .
    rm "$package"_*.deb
done
echo "ready: $venv/bin/python -m benchmarks.networks"
