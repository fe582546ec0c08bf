"""Hold the Triton kernels of the delta rule. Their arguments are pointers to contiguous float32 tensors.

A token's vectors [.., H, r] lie one token after the other; `bh` counts batch times heads. RANK is r, R the power of two
that it is padded to. Rows of a state are independent, so a chunk of C tokens maps each row s to s @ turn + add.
"""

import triton
import triton.language as tl


@triton.jit
def _vector(base, bh, t, length, heads, inside, RANK: tl.constexpr, R: tl.constexpr):
    """Load one token's vector [R]; a token outside is zeros."""
    at = ((bh // heads) * length + t) * heads + bh % heads
    i = tl.arange(0, R)
    return tl.load(base + at * RANK + i, mask=(i < RANK) & inside, other=0.0)


@triton.jit
def _put_vector(base, bh, t, length, heads, inside, value, RANK: tl.constexpr, R: tl.constexpr):
    at = ((bh // heads) * length + t) * heads + bh % heads
    i = tl.arange(0, R)
    tl.store(base + at * RANK + i, value, mask=(i < RANK) & inside)


@triton.jit
def _matrix(base, number, RANK: tl.constexpr, R: tl.constexpr):
    """Load the matrix [R, R] of this number."""
    i, j = tl.arange(0, R)[:, None], tl.arange(0, R)[None, :]
    return tl.load(base + number * RANK * RANK + i * RANK + j, mask=(i < RANK) & (j < RANK), other=0.0)


@triton.jit
def _put_matrix(base, number, value, RANK: tl.constexpr, R: tl.constexpr):
    i, j = tl.arange(0, R)[:, None], tl.arange(0, R)[None, :]
    tl.store(base + number * RANK * RANK + i * RANK + j, value, mask=(i < RANK) & (j < RANK))


@triton.jit
def maps_kernel(
    k, keep, erase, written, turn, add, length, heads, chunks, C: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr
):
    """Find turn and add of one row (program 1) over one chunk (program 0: bh, then chunk)."""
    bh, chunk, row = tl.program_id(0) // chunks, tl.program_id(0) % chunks, tl.program_id(1)
    i, j = tl.arange(0, R)[:, None], tl.arange(0, R)[None, :]
    turned = tl.where(i == j, 1.0, 0.0)
    added = tl.zeros([R], tl.float32)
    for step in range(C):
        t = chunk * C + step
        inside = t < length
        key = _vector(k, bh, t, length, heads, inside, RANK, R)
        at = (((bh // heads) * length + t) * heads + bh % heads) * RANK + row
        keep_t = tl.load(keep + at, mask=inside, other=1.0)
        erase_t = tl.load(erase + at, mask=inside, other=0.0)
        written_t = tl.load(written + at, mask=inside, other=0.0)
        turned = keep_t * turned - erase_t * tl.sum(turned * key[None, :], 1)[:, None] * key[None, :]
        added = keep_t * added + (written_t - erase_t * tl.sum(added * key, 0)) * key
    number = (bh * chunks + chunk) * RANK + row
    _put_matrix(turn, number, turned, RANK, R)
    columns = tl.arange(0, R)
    tl.store(add + number * RANK + columns, added, mask=columns < RANK)


@triton.jit
def carry_kernel(turn, add, begin, starts, end, chunks, BACKWARD: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr):
    """Carry one row (program 1) of one bh (program 0) over the chunks; BACKWARD: from the last, by turn transposed."""
    bh, row = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, R)
    inside = columns < RANK
    state = tl.load(begin + (bh * RANK + row) * RANK + columns, mask=inside, other=0.0)
    for step in range(chunks):
        chunk = chunks - 1 - step if BACKWARD else step
        number = (bh * chunks + chunk) * RANK + row
        tl.store(starts + number * RANK + columns, state, mask=inside)
        matrix = _matrix(turn, number, RANK, R)
        added = tl.load(add + number * RANK + columns, mask=inside, other=0.0)
        moved = tl.sum(matrix * state[None, :], 1) if BACKWARD else tl.sum(matrix * state[:, None], 0)
        state = moved + added
    tl.store(end + (bh * RANK + row) * RANK + columns, state, mask=inside)


@triton.jit
def reads_kernel(
    q, k, keep, erase, written, starts, y, before, length, heads, chunks,
    KEEP_STATES: tl.constexpr, C: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Read y along one chunk from its starting state; KEEP_STATES: also store the state before each token."""
    bh, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    state = _matrix(starts, bh * chunks + chunk, RANK, R)
    for step in range(C):
        t = chunk * C + step
        inside = t < length
        if KEEP_STATES:
            _put_matrix(before, (bh * chunks + chunk) * C + step, state, RANK, R)
        query = _vector(q, bh, t, length, heads, inside, RANK, R)
        _put_vector(y, bh, t, length, heads, inside, tl.sum(state * query[None, :], 1), RANK, R)
        key = _vector(k, bh, t, length, heads, inside, RANK, R)
        keep_t = tl.where(inside, _vector(keep, bh, t, length, heads, inside, RANK, R), 1.0)
        change = _vector(written, bh, t, length, heads, inside, RANK, R)
        change -= _vector(erase, bh, t, length, heads, inside, RANK, R) * tl.sum(state * key[None, :], 1)
        state = keep_t[:, None] * state + change[:, None] * key[None, :]


@triton.jit
def states_kernel(
    k, keep, erase, written, starts, positions, found, length, heads, chunks, asked,
    C: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Find the state of one bh (program 0) after a count of tokens (program 1)."""
    bh, which = tl.program_id(0), tl.program_id(1)
    count = tl.load(positions + (bh // heads) * asked + which).to(tl.int32)
    chunk = tl.minimum(count // C, chunks - 1)
    state = _matrix(starts, bh * chunks + chunk, RANK, R)
    for step in range(C):
        t = chunk * C + step
        inside = t < count
        key = _vector(k, bh, t, length, heads, inside, RANK, R)
        keep_t = tl.where(inside, _vector(keep, bh, t, length, heads, inside, RANK, R), 1.0)
        change = _vector(written, bh, t, length, heads, inside, RANK, R)
        change -= _vector(erase, bh, t, length, heads, inside, RANK, R) * tl.sum(state * key[None, :], 1)
        state = keep_t[:, None] * state + change[:, None] * key[None, :]
    _put_matrix(found, ((bh // heads) * asked + which) * heads + bh % heads, state, RANK, R)


@triton.jit
def back_add_kernel(
    q, k, keep, erase, dy, add, length, heads, chunks, C: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr
):
    """Find what one chunk's reads add to the gradient of the state at its start."""
    bh, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    grad = tl.zeros([R, R], tl.float32)
    for step in range(C):
        t = chunk * C + C - 1 - step
        inside = t < length
        key = _vector(k, bh, t, length, heads, inside, RANK, R)
        query = _vector(q, bh, t, length, heads, inside, RANK, R)
        keep_t = tl.where(inside, _vector(keep, bh, t, length, heads, inside, RANK, R), 1.0)
        erase_t = _vector(erase, bh, t, length, heads, inside, RANK, R)
        dy_t = _vector(dy, bh, t, length, heads, inside, RANK, R)
        erased = erase_t * tl.sum(grad * key[None, :], 1)
        grad = keep_t[:, None] * grad - erased[:, None] * key[None, :] + dy_t[:, None] * query[None, :]
    _put_matrix(add, bh * chunks + chunk, grad, RANK, R)


@triton.jit
def back_kernel(
    q, k, keep, erase, written, before, dy, ends, dq, dk, dkeep, derase, dwritten, length, heads, chunks,
    C: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Find one chunk's gradients, from the gradient of the state at its end backwards."""
    bh, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    grad = _matrix(ends, bh * chunks + chunk, RANK, R)
    for step in range(C):
        t = chunk * C + C - 1 - step
        inside = t < length
        state = _matrix(before, (bh * chunks + chunk) * C + C - 1 - step, RANK, R)
        key = _vector(k, bh, t, length, heads, inside, RANK, R)
        query = _vector(q, bh, t, length, heads, inside, RANK, R)
        keep_t = tl.where(inside, _vector(keep, bh, t, length, heads, inside, RANK, R), 1.0)
        erase_t = _vector(erase, bh, t, length, heads, inside, RANK, R)
        dy_t = _vector(dy, bh, t, length, heads, inside, RANK, R)
        predicted = tl.sum(state * key[None, :], 1)
        change = _vector(written, bh, t, length, heads, inside, RANK, R) - erase_t * predicted
        dchange = tl.sum(grad * key[None, :], 1)
        dpredicted = -erase_t * dchange
        _put_vector(dkeep, bh, t, length, heads, inside, tl.sum(grad * state, 1), RANK, R)
        _put_vector(derase, bh, t, length, heads, inside, -dchange * predicted, RANK, R)
        _put_vector(dwritten, bh, t, length, heads, inside, dchange, RANK, R)
        _put_vector(dq, bh, t, length, heads, inside, tl.sum(state * dy_t[:, None], 0), RANK, R)
        dkey = tl.sum(grad * change[:, None], 0) + tl.sum(state * dpredicted[:, None], 0)
        _put_vector(dk, bh, t, length, heads, inside, dkey, RANK, R)
        grad = keep_t[:, None] * grad + dpredicted[:, None] * key[None, :] + dy_t[:, None] * query[None, :]


@triton.jit
def _squashed_unit(x, eps):
    """Give tanh(x) as a unit vector."""
    square = x * x
    # Below a quarter the difference loses digits, and a length of 1 would bring out what is left of them.
    small = x * (1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    squashed = tl.where(square < 0.0625, small, 1 - 2 / (tl.exp(2 * x) + 1))
    return squashed / tl.maximum(tl.sqrt(tl.sum(squashed * squashed, 0)), eps)


@triton.jit
def _project(weight, rows, column, width, part, real):
    """Multiply rows of a weight with a part of the input; a value outside is zero."""
    return tl.sum(tl.load(weight + rows[:, None] * width + column[None, :], mask=real, other=0.0) * part, 1)


@triton.jit
def step_kernel(
    x, weight, bias, state, write, y, after, width, heads, eps,
    OUTSIDE: tl.constexpr, KEEPS_ALL: tl.constexpr, OWN_DECAY: tl.constexpr,
    PER_ROW: tl.constexpr, MASKED: tl.constexpr, RANK: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Project one token's input, read the state of one batch row (program 0) and head (program 1), and write it.

    x [B, width]; weight [3·H·r + gates, width] and bias: queries, keys, values, write gates, decay gates.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, R)
    inside = i < RANK
    first = head * RANK + i
    gate = 3 * heads * RANK + (first if PER_ROW else head + 0 * i)
    decay = gate + (heads * RANK if PER_ROW else heads)
    q, k = tl.zeros([R], tl.float32), tl.zeros([R], tl.float32)
    v, b, d = tl.zeros([R], tl.float32), tl.zeros([R], tl.float32), tl.zeros([R], tl.float32)
    for begin in range(0, width, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        real = inside[:, None] & (column < width)[None, :]
        part = tl.load(x + row * width + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
        q += _project(weight, first, column, width, part, real)
        k += _project(weight, first + heads * RANK, column, width, part, real)
        v += _project(weight, first + 2 * heads * RANK, column, width, part, real)
        b += _project(weight, gate, column, width, part, real)
        if OWN_DECAY:
            d += _project(weight, decay, column, width, part, real)
    query, key = _squashed_unit(q, eps), _squashed_unit(k, eps)
    beta = tl.sigmoid(b + tl.load(bias + gate, mask=inside, other=0.0))
    keep = 1 - beta
    if OWN_DECAY:
        keep = tl.sigmoid(d + tl.load(bias + decay, mask=inside, other=0.0))
    if KEEPS_ALL:
        keep = 0 * beta + 1
    erase = keep * beta if OUTSIDE else beta
    number = row * heads + head
    before = _matrix(state, number, RANK, R)
    tl.store(y + number * RANK + i, tl.sum(before * query[None, :], 1), mask=inside)
    change = beta * v - erase * tl.sum(before * key[None, :], 1)
    written = keep[:, None] * before + change[:, None] * key[None, :]
    if MASKED:
        written = tl.where(tl.load(write + row) != 0, written, before)
    _put_matrix(after, number, written, RANK, R)
