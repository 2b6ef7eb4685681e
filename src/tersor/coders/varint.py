"""Numbers of any size as bytes, seven bits each, lowest first (spec/FORMAT.md, section 6.3)."""


def varint(x: int) -> bytes:
    """The shortest form of x >= 0."""
    out = bytearray()
    while x > 127:
        out.append(x & 127 | 128)
        x >>= 7
    return bytes([*out, x])
