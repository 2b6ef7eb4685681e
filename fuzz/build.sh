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

for part in hash rans decode encode; do
  "$cc" "${common[@]}" "${watched[@]}" -c "src/tersor/core/$part.c" -o "$out/objects/$part.o"
done
"$cc" "${common[@]}" -c fuzz/builder.c -o "$out/objects/builder.o"
link() { # PROGRAM OBJECT...
  "$cc" -fsanitize=fuzzer,address,undefined "${@:2}" "$out"/objects/{hash,decode,encode,builder}.o -lm -o "$out/$1"
}
for source in fuzz/targets/*.c; do
  name=$(basename "$source" .c)
  "$cc" "${common[@]}" "${watched[@]}" -c "$source" -o "$out/objects/target-$name.o"
  link "$name" "$out/objects/target-$name.o" "$out/objects/rans.o"
done
# The decoder as it is where there are no wide vectors.
"$cc" "${common[@]}" "${watched[@]}" -DTSR_SCALAR -c src/tersor/core/rans.c -o "$out/objects/rans-scalar.o"
link scalar "$out/objects/target-paths.o" "$out/objects/rans-scalar.o"
