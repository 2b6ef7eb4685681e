#!/usr/bin/env bash
# Build the fuzz targets of the native core into build/fuzz: libFuzzer, address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
cc=${CLANG:-clang}
out=build/fuzz
mkdir -p "$out/objects"
rm -f "$out"/objects/*.o
common=(-std=c11 -O2 -g -ffp-contract=off -Wall -Wextra -Wno-unused-function -Isrc/tersor/core -Ifuzz)
watched=(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  -fsanitize-coverage=inline-8bit-counters,pc-table)

parts=(hash tables rans rans_x86 rans_neon decode encode counts rans_encode adaptive runs)
for part in "${parts[@]}"; do
  "$cc" "${common[@]}" "${watched[@]}" -c "src/tersor/core/$part.c" -o "$out/objects/$part.o"
done
"$cc" "${common[@]}" -c fuzz/builder.c -o "$out/objects/builder.o"
objects=("$out"/objects/*.o)
for source in fuzz/targets/*.c; do
  name=$(basename "$source" .c)
  "$cc" "${common[@]}" "${watched[@]}" -c "$source" -o "$out/objects/target-$name.o"
  "$cc" -fsanitize=fuzzer,address,undefined "$out/objects/target-$name.o" "${objects[@]}" -lm -o "$out/$name"
done
