#!/usr/bin/env bash
# Build the fuzz targets of the native core into build/fuzz: libFuzzer, address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/fuzz
mkdir -p "$out"
core=(src/tersor/core/{hash,rans,decode,encode}.c)
flags=(-std=c11 -O2 -g -ffp-contract=off -fno-omit-frame-pointer -Wall -Wextra -Wno-unused-function
  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Isrc/tersor/core -Ifuzz)
for source in fuzz/targets/*.c; do
  "${CLANG:-clang}" "${flags[@]}" "$source" "${core[@]}" -lm -o "$out/$(basename "$source" .c)"
done
