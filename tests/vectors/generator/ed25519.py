"""Ed25519 as section 1 of crates/mosaik-core/FORMAT.md wants it checked. Slow and not constant time."""

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
IDENTITY = (0, 1)


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    cross = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + cross, P - 2, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - cross, P - 2, P) % P
    return x, y


def times(number, point):
    result = IDENTITY
    while number:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


def negative(point):
    return -point[0] % P, point[1]


def encode(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(data):
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, (number & (1 << 255) - 1) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (-x % P if x & 1 != sign else x), y


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def _torsion():
    """A point of order 8: what the large prime order leaves of some point."""
    for y in range(2, 100):
        point = decode(y.to_bytes(32, "little"))
        left = point and times(L, point)
        if left and times(4, left) != IDENTITY:
            return left


TORSION = _torsion()


def secret(seed):
    digest = sha512(seed).digest()
    number = int.from_bytes(digest[:32], "little")
    return number & (1 << 254) - 8 | 1 << 254, digest[32:]


def public(seed):
    return encode(times(secret(seed)[0], BASE))


def challenge(r, a, message):
    return int.from_bytes(sha512(r + a + message).digest(), "little") % L


def sign(seed, message):
    scalar, nonce = secret(seed)
    number = int.from_bytes(sha512(nonce + message).digest(), "little") % L
    r = encode(times(number, BASE))
    s = (number + challenge(r, public(seed), message) * scalar) % L
    return r + s.to_bytes(32, "little")


def is_small(point):
    return times(8, point) == IDENTITY


def check(key, message, signature):
    """The strict check. Says why not, or nothing."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    a_point, r_point = decode(key), decode(r)
    if a_point is None or r_point is None:
        return "the key or R is no point"
    if is_small(a_point) or is_small(r_point):
        return "the key or R is of small order"
    if s >= L:
        return "s is not below L"
    expected = add(times(s, BASE), negative(times(challenge(r, key, message), a_point)))
    return None if encode(expected) == r else "not what the key signed"
