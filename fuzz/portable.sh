#!/usr/bin/env bash
# The core on other processors: the fuzz targets and the golden files, compiled for them and run by qemu.
# fuzz/portable.sh [INPUTS]. Debian: gcc-aarch64-linux-gnu gcc-s390x-linux-gnu qemu-user-static and the libc6-dev-*-cross.
set -euo pipefail
cd "$(dirname "$0")/.."
inputs=${1:-500}
python=${PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=python3
flags=(-std=c11 -O2 -static -ffp-contract=off -Wall -Wextra -Wno-unused-function -Isrc/tersor/core -Ifuzz)
mkdir -p build/portable
"$python" fuzz/portable.py build/portable/battery
for machine in "" aarch64 s390x; do # the first is the one at hand
  out=build/portable/${machine:-native}
  mkdir -p "$out"
  compiler=${machine:+$machine-linux-gnu-}gcc
  run=(${machine:+qemu-$machine-static})
  for source in src/tersor/core/*.c fuzz/{builder,standalone,portable}.c; do
    "$compiler" "${flags[@]}" -c "$source" -o "$out/$(basename "$source" .c).o"
  done
  for source in fuzz/targets/*.c; do
    name=$(basename "$source" .c)
    "$compiler" "${flags[@]}" "-DLLVMFuzzerTestOneInput=fuzz_$name" -c "$source" -o "$out/target-$name.o"
  done
  parts=("$out"/{hash,tables,rans,rans_x86,rans_neon,decode,encode,counts,rans_encode,adaptive,runs}.o)
  "$compiler" -static "$out"/{standalone,builder}.o "$out"/target-*.o "${parts[@]}" -lm -o "$out/standalone"
  "$compiler" -static "$out/portable.o" "${parts[@]}" -lm -o "$out/portable"
  echo "${machine:-native}: $("${run[@]}" "$out/portable" build/portable/battery)"
  for source in fuzz/targets/*.c; do
    "${run[@]}" "$out/standalone" "$(basename "$source" .c)" "$inputs"
  done
done
