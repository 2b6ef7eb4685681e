# fmt: off
"""XXH3 with 64 bits, the hash of the format, for reference_decoder.py: slow, standard library only."""

from __future__ import annotations

import struct

# ---- The hash: XXH3, 64 bits, with a seed (names as in the xxHash specification) ----
M32, M64 = (1 << 32) - 1, (1 << 64) - 1
PRIME32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
PRIME64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")

def number(data: bytes, at: int, size: int) -> int: return int.from_bytes(data[at : at + size], "little")
def secret2(at: int) -> int: return number(SECRET, at, 8) ^ number(SECRET, at + 8, 8)
def fold(a: int, b: int) -> int: return (a * b ^ a * b >> 64) & M64
def avalanche(x: int, shift: int = 37, factor: int = MX1) -> int:
    x = (x ^ x >> shift) * factor & M64
    return x ^ x >> 32
def avalanche_xxh64(x: int) -> int: return avalanche((x ^ x >> 33) * PRIME64[1] & M64, 29, PRIME64[2])
def mix(data: bytes, at: int, secret_at: int, seed: int) -> int:
    s, t = number(SECRET, secret_at, 8) + seed & M64, number(SECRET, secret_at + 8, 8) - seed & M64
    return fold(number(data, at, 8) ^ s, number(data, at + 8, 8) ^ t)
def xxh3(data: bytes, seed: int = 0) -> int:
    n = len(data)
    if n == 0:
        return avalanche_xxh64(seed ^ secret2(56))
    if n <= 3:
        combined = data[n - 1] | n << 8 | data[0] << 16 | data[n >> 1] << 24
        return avalanche_xxh64(((number(SECRET, 0, 4) ^ number(SECRET, 4, 4)) + seed & M64) ^ combined)
    if n <= 8:
        seed ^= int.from_bytes((seed & M32).to_bytes(4, "little"), "big") << 32
        x = (secret2(8) - seed & M64) ^ (number(data, n - 4, 4) | number(data, 0, 4) << 32)
        x = (x ^ ((x << 49 | x >> 15) ^ (x << 24 | x >> 40)) & M64) * MX2 & M64
        x = (x ^ (x >> 35) + n) * MX2 & M64
        return x ^ x >> 28
    if n <= 16:
        low, high = (secret2(24) + seed & M64) ^ number(data, 0, 8), (secret2(40) - seed & M64) ^ number(data, n - 8, 8)
        return avalanche(n + int.from_bytes(low.to_bytes(8, "little"), "big") + high + fold(low, high) & M64)
    acc = n * PRIME64[0]
    if n <= 128:
        for i in range(0, (n + 31) // 32 * 16, 16):
            acc += mix(data, i, 2 * i, seed) + mix(data, n - i - 16, 2 * i + 16, seed)
        return avalanche(acc & M64)
    if n <= 240:
        acc = avalanche(acc + sum(mix(data, i, i, seed) for i in range(0, 128, 16)) & M64)
        acc += sum(mix(data, i, i - 125, seed) for i in range(128, n - 15, 16))
        return avalanche(acc + mix(data, n - 16, 119, seed) & M64)
    return xxh3_large(data, n, seed)
def xxh3_large(data: bytes, n: int, seed: int) -> int:
    words = enumerate(struct.unpack("<24Q", SECRET))
    secret = struct.pack("<24Q", *((w - seed if i % 2 else w + seed) & M64 for i, w in words))
    keys = [struct.unpack_from("<8Q", secret, 8 * i) for i in range(17)]  # 16 for stripes, 1 to scramble
    acc = [PRIME32[2], *PRIME64[:4], PRIME32[1], PRIME64[4], PRIME32[0]]  # may exceed 64 bits in between
    for stripe in range((n - 1) // 64 + 1):
        last = stripe == (n - 1) // 64
        key = struct.unpack_from("<8Q", secret, 121) if last else keys[stripe % 16]
        for i, word in enumerate(struct.unpack_from("<8Q", data, n - 64 if last else 64 * stripe)):
            acc[i ^ 1] += word
            acc[i] += ((word ^ key[i]) & M32) * ((word ^ key[i]) >> 32)
        if stripe % 16 == 15 and not last:
            acc = [(a ^ (a & M64) >> 47 ^ keys[16][i]) * PRIME32[0] & M64 for i, a in enumerate(acc)]
    acc = [(a & M64) ^ k for a, k in zip(acc, struct.unpack_from("<8Q", secret, 11), strict=True)]
    return avalanche(n * PRIME64[0] + sum(fold(acc[i], acc[i + 1]) for i in (0, 2, 4, 6)) & M64)
