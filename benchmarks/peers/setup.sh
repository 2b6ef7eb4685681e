#!/bin/sh
# Environments for the peers, beside this script: .venv-lossless (zipnn, lmzip, z4ai, zstandard) and .venv-nncodec.
# Safe to run again. $PYTHON names the interpreter (3.11); NNCodec is built from source and needs a C++ compiler.
set -eu
cd "$(dirname "$0")"
for peer in lossless nncodec; do
    [ -x ".venv-$peer/bin/python" ] || "${PYTHON:-python3}" -m venv ".venv-$peer"
    ".venv-$peer/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
    ".venv-$peer/bin/pip" install --quiet --disable-pip-version-check -r "requirements-$peer.txt"
done
.venv-nncodec/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation nncodec==2.1.3
