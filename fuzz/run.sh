#!/usr/bin/env bash
# Build all targets and fuzz for SECONDS in all: fuzz/run.sh SECONDS [--results FILE] [--only TARGET...]
# Exit status 1 if anything was found. PYTHON is an interpreter that has tersor, and atheris for guided fuzzing of the reader.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=.venv/bin/python
  [[ -x $PYTHON ]] || PYTHON=python3
fi
fuzz/build.sh
exec "$PYTHON" fuzz/campaign.py "${@:-600}"
