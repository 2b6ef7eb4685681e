# fmt: off
"""Reference decoder of coder `adaptive` (ADAPTIVE.md), for reference_decoder.py: slow, standard library only."""

from __future__ import annotations

from bisect import bisect_left


class DecodeError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code

def need(condition: bool, code: str, message: str) -> None:
    if not condition:
        raise DecodeError(code, message)

# ---- 6.5 Coder adaptive ----
KNOTS = [0, 1, 1, 2, 3, 5, 8, 13, 22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625]
KNOTS += [24743, 32768]
KNOTS += [65536 - knot for knot in KNOTS[-2::-1]]
def squash(x: int) -> int:
    k, f = divmod(x + 3072, 128)
    return min(max(KNOTS[k] * (128 - f) + KNOTS[k + 1] * f + 64 >> 7, 4), 65532)
SQUASH = [squash(x) for x in range(-3071, 3072)]
STRETCH = [min(bisect_left(SQUASH, 16 * p + 8), 6142) - 3071 for p in range(4096)]

def clamp(x: int, low: int, high: int) -> int: return min(max(x, low), high)
def signed(x: int) -> int: return (x + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
def quotient(a: int, b: int) -> int: return abs(a) // b * (1 if a >= 0 else -1)  # towards zero
def log(x: int) -> int: return 16 * (x.bit_length() - 1) + (x << 4 >> x.bit_length() - 1 & 15)
def add(mean: list[int], size: int, value: int, most: int) -> None:  # count, sums of sizes and of values
    mean[:] = [mean[0] + 1, mean[1] + size, mean[2] + value]
    if mean[0] == most:
        mean[:] = [quotient(x, 2) for x in mean]

class Adaptive:
    def __init__(self, data: bytes, columns: int, period: int, column: int) -> None:
        need(len(data) >= 4, "stream_truncated", "no state")
        self.data, self.at, self.low, self.high = data, 4, 0, 0xFFFFFFFF
        self.code = int.from_bytes(data[:4], "big")
        self.columns, self.period, self.column, self.start = columns, period, column, column
        self.pad = 2 * period + 8
        self.rows = [[0] * (self.pad + columns + 2) for _ in range(3)]  # this one and the two above it, zeros around
        self.means, self.all, self.row_sum, self.row_expected = [[0, 0, 0] for _ in range(columns)], [1, 256, 0], 0, 0
        self.recent, self.tap_weights = 256, [0] * 16
        self.estimates: dict[tuple[int, int, int], list[int]] = {}
        self.mixers: dict[tuple[int, bool], list[int]] = {}

    def bit(self, p: int) -> bool:
        middle = self.low + ((self.high - self.low) * p >> 16)
        bit = self.code <= middle
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        while self.low >> 24 == self.high >> 24:
            need(self.at < len(self.data), "stream_truncated", "bytes are missing")
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 255
            self.code, self.at = self.code << 8 & 0xFFFFFFFF | self.data[self.at], self.at + 1
        return bit

    def decide(self, node: int, negative: bool = False) -> bool:
        own = [self.estimates.setdefault((m, c, node), [1 << 31, 1 << 15, 0]) for m, c in enumerate(self.contexts)]
        inputs = [STRETCH[e[0] >> 20] * (256 * e[2] // (e[2] + 2)) >> 8 for e in own]
        inputs += [STRETCH[e[1] >> 4] * (256 * e[2] // (e[2] + 2)) >> 8 for e in own] + self.inputs
        mixer = self.mixers.setdefault((node, negative), [3 << 16] * 6 + [0] * 11)
        p = SQUASH[clamp(sum(w * x for w, x in zip(mixer, inputs, strict=False)) >> 20, -3071, 3071) + 3071]
        bit = self.bit(p)
        speed = ((bit << 16) - p) * (200 + 4194304 // (400 + mixer[16])) >> 12
        learned = (signed(w + (x * speed + 2048 >> 12)) for w, x in zip(mixer, inputs, strict=False))
        mixer[:] = [*learned, min(mixer[16] + 1, 65535)]
        for e in own:
            e[0] += (bit * 0xFFFFFFFF - e[0]) * (131072 // (2 * e[2] + 3)) >> 16
            e[1] += (bit * 0xFFFF - e[1]) * (131072 // (2 * min(e[2], 23) + 3)) >> 16
            e[2] = min(e[2] + 1, 1023)
        return bit

    def look_around(self) -> None:
        (here, above, higher), i, k = self.rows, self.pad + self.column, self.period
        count, total, signed_total = self.means[self.column]
        taps = [here[i - j] for j in range(1, 7)] + above[i - 1 : i + 2] + [higher[i]]
        taps += [here[i - j] for j in range(k + 2, k - 3, -1)] if k else [0] * 5
        self.taps = taps = [*taps, clamp(quotient(8 * signed_total, count + 2), -4095, 4095)]
        self.prediction = clamp(sum(w * x for w, x in zip(self.tap_weights, taps, strict=True)) >> 8, -1048320, 1048320)
        mean = self.all[1] // self.all[0]
        by_column = (total + 6 * mean) // (count + 6)
        by_row = (self.row_sum + 8 * mean) // (self.column - self.start + 8)
        self.expected = min(by_column * (self.row_sum + 8 * mean) // (self.row_expected + 8 * mean + 1), 1048320)
        self.row_expected += by_column
        a, twice = [abs(tap) for tap in taps], abs(here[i - 2 * k]) if k else 0
        logs = [log(x) for x in (self.expected + 2, by_column + 2, by_row + 2, (2 * a[0] + a[1] + a[2] + 1) * 64,
                                 (2 * a[7] + a[6] + a[8] + a[9] + 1) * 64, (2 * a[12] + 2 * twice + 1) * 64,
                                 self.recent + 2, abs(self.prediction) + 16)]
        agreement = clamp(quotient(self.prediction * -512, self.expected + 64), -2047, 2047)
        self.inputs = [256] + [(x - 128) * 11 for x in logs] + [agreement]
        self.contexts = (min(logs[0] >> 2, 79), 32 * min(logs[1] >> 3, 31) + min(logs[2] >> 3, 31),
                         (self.prediction < 0) + 2 * min(logs[7] - 64 >> 3, 15) + 32 * min(logs[0] >> 4, 15))

    def magnitude_and_sign(self) -> int:
        if not self.decide(0):
            return 0
        negative, size = self.decide(1), 1
        self.inputs[9] *= 1 if negative else -1
        while size < 62 and self.decide(1 + min(size, 15), negative):
            size += 1
        if size >= 4:
            node, bits, size = 17 + 3 * min(size - 4, 9), size // 2 - 1, 2 + size % 2
            first = self.decide(node)
            size = 2 * size + first
            for k in range(1, bits):
                size = 2 * size + (self.decide(node + 1 + first) if k == 1 else self.bit(32768))
        return -size if negative else size

    def value(self) -> int:
        self.look_around()
        value = signed(self.magnitude_and_sign())
        x = clamp(value, -4095, 4095)
        energy = 8 + (sum(tap * tap for tap in self.taps) >> 1)
        step = clamp(quotient((256 * x - self.prediction) * 655, energy), -(1 << 18), 1 << 18)
        pairs = zip(self.tap_weights, self.taps, strict=True)
        self.tap_weights = [signed(w + (tap * step + 128 >> 8)) for w, tap in pairs]
        add(self.all, 256 * abs(x), x, 4096)
        add(self.means[self.column], 256 * abs(x), x, 256)
        self.row_sum, self.recent = self.row_sum + 256 * abs(x), 15 * self.recent + 256 * abs(x) + 8 >> 4
        self.rows[0][self.pad + self.column] = x
        self.column += 1
        if self.column == self.columns:
            self.rows = [self.rows[2], *self.rows[:2]]
            self.column = self.start = self.row_sum = self.row_expected = 0
        return value

def read_layout(prelude: bytes) -> list[int]:  # columns, period, centre
    numbers, number, shift = list[int](), 0, 0
    for byte in prelude:
        number, shift = number | (byte & 127) << shift, shift + 7
        if byte < 128:
            need(number < 1 << 32 and (byte > 0 or shift == 7), "stream_table", "a varint of the prelude")
            numbers, number, shift = [*numbers, number], 0, 0
    need(len(numbers) == 3 and shift == 0, "stream_table", "the length of the prelude")
    columns, period, centre = numbers
    possible = 1 <= columns <= 65536 and (period == 0 or 3 <= period <= min(4096, columns - 1))
    need(possible, "stream_table", "columns or period")
    return [columns, period, centre >> 1 ^ -(centre & 1)]

def decode_adaptive(layout: list[int], first: int, piece: bytes, count: int) -> list[int]:
    columns, period, centre = layout
    chunk = Adaptive(piece, columns, period, first % columns)
    values = [signed(centre + chunk.value()) for _ in range(count)]
    need(chunk.at == len(piece) and chunk.code == chunk.low, "stream_trailing", "bytes left over, or a wrong end")
    return values
