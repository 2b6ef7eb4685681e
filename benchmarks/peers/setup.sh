#!/bin/sh
# Environments for the peers, beside this script: .venv-lossless (zipnn, lmzip, z4ai, zstandard), .venv-nncodec,
# .venv-quantizers (optimum-quanto, HQQ, torchao), .venv-onnxruntime and .venv-llmcompressor.
# Safe to run again. $PYTHON names the interpreter (3.11); NNCodec is built from source and needs a C++ compiler.
set -eu
cd "$(dirname "$0")"
for peer in lossless nncodec quantizers onnxruntime llmcompressor; do
    [ -x ".venv-$peer/bin/python" ] || "${PYTHON:-python3}" -m venv ".venv-$peer"
    ".venv-$peer/bin/pip" install --quiet --disable-pip-version-check -r "requirements-$peer.txt"
done
.venv-nncodec/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation nncodec==2.1.3
.venv-quantizers/bin/pip install --quiet --disable-pip-version-check --no-deps optimum-quanto==0.2.7 hqq==0.2.8.post1 torchao==0.18.0
