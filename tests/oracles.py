"""Plain versions of what the Rust core computes: loops and dicts, written to be obviously right."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
import xxhash

PADDING, UNKNOWN, FIRST = 0, 1, 2
MASK = 2**64 - 1


def vocab_order(values: Iterable[int | str | None], min_count: int = 1) -> list[tuple[int | str, int]]:
    """Values and counts in id order: by falling count, ties by value, strings by their UTF-8 bytes."""
    counts = Counter(value for value in values if value is not None)
    kept = [(value, count) for value, count in counts.items() if count >= min_count]
    return sorted(
        kept, key=lambda pair: (-pair[1], key_bytes(pair[0]) if isinstance(pair[0], str) else pair[0])
    )


def encode(order: Sequence[tuple[int | str, int]], values: Iterable[int | str | None]) -> list[int]:
    """Ids of `values` in the vocabulary of `order`."""
    ids = {value: i for i, (value, _) in enumerate(order, start=FIRST)}
    return [UNKNOWN if value is None else ids.get(value, UNKNOWN) for value in values]


def jagged(lists: Iterable[Sequence | None]) -> tuple[list, list[int]]:
    """Elements and offsets of a list column; a null list is an empty one."""
    elements, offsets = [], [0]
    for row in lists:
        elements.extend(row or [])
        offsets.append(len(elements))
    return elements, offsets


def key_bytes(value: int | str) -> bytes:
    """What of a value is hashed."""
    return value.encode() if isinstance(value, str) else value.to_bytes(8, "little", signed=True)


def history(
    users: Sequence[int],
    times: Sequence[int],
    user: int,
    time: int,
    length: int,
    delay: int,
    *,
    max_age: int | None = None,
    keep: Sequence[bool] | None = None,
) -> list[int]:
    """Positions of the newest `length` events of `user` strictly before `time - delay`, newest first.

    Only those that `keep` marks, and none before `time - max_age`.
    """
    past = [i for i, (u, t) in enumerate(zip(users, times, strict=True)) if u == user and t < time - delay]
    past = [i for i in past if max_age is None or times[i] >= time - max_age]
    past = [i for i in past if keep is None or keep[i]]
    past.sort(key=lambda i: (times[i], i), reverse=True)
    return past[:length]


def auc(label: Sequence[float], score: Sequence[float]) -> float | None:
    """Share of (positive, negative) pairs in the right order, ties counting half; None without a pair."""
    positives = [s for y, s in zip(label, score, strict=True) if y == 1]
    negatives = [s for y, s in zip(label, score, strict=True) if y == 0]
    if not positives or not negatives:
        return None
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def gauc(
    group: Sequence[int], label: Sequence[float], score: Sequence[float], weighting: str = "impressions"
) -> tuple[float | None, int, int]:
    """Weighted mean of the AUC of each group; groups of one class are dropped."""
    weighted, total, used, dropped = 0.0, 0, 0, 0
    for g in set(group):
        members = [i for i, other in enumerate(group) if other == g]
        value = auc([label[i] for i in members], [score[i] for i in members])
        if value is None:
            dropped += 1
            continue
        positives = sum(label[i] == 1 for i in members)
        weight = {"impressions": len(members), "positives": positives, "uniform": 1}[weighting]
        weighted, total, used = weighted + value * weight, total + weight, used + 1
    return (weighted / total if total else None), used, dropped


def reliability(
    label: Sequence[float], probability: Sequence[float], bins: int, by: str
) -> tuple[list[tuple[int, int, int, float]], float]:
    """Rows (bin, rows, positives, mean probability) of the bins that are not empty, and the calibration error."""
    members: dict[int, list[int]] = {}
    for i, p in enumerate(probability):
        if by == "width":
            number = next(k for k in range(bins) if k == bins - 1 or p <= (k + 1) / bins)
        else:
            number = sum(other < p for other in probability) * bins // len(probability)
        members.setdefault(number, []).append(i)
    table, error = [], Fraction(0)
    for number in sorted(members):
        rows = members[number]
        total = sum(Fraction(probability[i]) for i in rows)
        positives = sum(label[i] == 1 for i in rows)
        table.append((number, len(rows), positives, float(total / len(rows))))
        error += abs(total - positives)
    return table, float(error / len(label))


def logloss(label: Sequence[float], probability: Sequence[float], epsilon: float = 1e-7) -> float:
    """Mean negative log-likelihood of clipped probabilities."""
    total = 0.0
    for y, p in zip(label, probability, strict=True):
        p = min(max(p, epsilon), 1 - epsilon)
        total -= math.log(p) if y == 1 else math.log1p(-p)
    return total / len(label)


def normalized_entropy(label: Sequence[float], probability: Sequence[float]) -> float:
    """Log loss over the log loss of predicting the base rate everywhere."""
    rate = sum(label) / len(label)
    return logloss(label, probability) / logloss(label, [rate] * len(label))


def permuted(n: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch: a ten-round Feistel network, walked until the position falls below `n`."""
    golden = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    bits = max(12, (n - 1).bit_length())
    low_bits = bits // 2
    state = mix((mix((seed + golden) & MASK) + epoch + golden) & MASK)
    keys = [mix((state + i * golden) & MASK) for i in range(1, 11)]

    def step(x: int) -> int:
        high, low = x >> low_bits, x & (2**low_bits - 1)
        for even, odd in zip(keys[::2], keys[1::2], strict=True):
            high ^= mix(low ^ even) & (2 ** (bits - low_bits) - 1)
            low ^= mix(high ^ odd) & (2**low_bits - 1)
        return high << low_bits | low

    rows = []
    for position in range(n):
        row = step(position)
        while row >= n:
            row = step(row)
        rows.append(row)
    return rows


def shards(n: int, batch_size: int, world_size: int, rank: int) -> list[list[int]]:
    """Positions of each batch of a rank: global batches in order, each cut into even consecutive shards."""
    together, positions = batch_size * world_size, list(range(n))
    whole = [positions[at : at + together] for at in range(0, n, together)]
    if len(whole) > 1 and len(whole[-1]) < world_size:
        whole[-2:] = [whole[-2] + whole[-1]]
    return [g[len(g) * rank // world_size : len(g) * (rank + 1) // world_size] for g in whole]


def pooled(
    first: int, last: int, *, block_rows: int, pools: int, seed: int, epoch: int, shuffle: bool
) -> list[int]:
    """Rows of an epoch over rows `first` to `last` of a table on disk, in the order in which they are served."""
    if not shuffle:
        return list(range(first, last))
    blocks = list(range(first // block_rows, -(-last // block_rows)))
    order = [blocks[i] for i in permuted(len(blocks), seed, epoch if pools > 1 else 0)]
    served = []
    for pool in range(pools):
        mine = sorted(order[len(order) * pool // pools : len(order) * (pool + 1) // pools])
        rows = [r for b in mine for r in range(b * block_rows, (b + 1) * block_rows) if first <= r < last]
        key = seed if pools == 1 else xxhash.xxh3_64_intdigest(f"{seed}:{pool}".encode())
        served += [rows[i] for i in permuted(len(rows), key, epoch)]
    return served


def rowwise_adagrad(weight, state, rows, grads, *, lr, eps=1e-8, l2=0.0):
    """`weight [n, d]` and `state [n]` after a step, float64, one row at a time."""
    weight, state = weight.astype(np.float64), state.astype(np.float64)
    for row in set(rows.tolist()):
        g = grads[rows == row].astype(np.float64).sum(axis=0) + l2 * weight[row]
        state[row] += np.mean(g**2)
        weight[row] -= lr * g / (np.sqrt(state[row]) + eps)
    return weight, state


def adam_rows(weight, first, second, rows, grads, *, lr, step, betas=(0.9, 0.999), eps=1e-8, l2=0.0):
    """`weight`, `first` and `second`, each `[n, d]`, after step number `step`, float64, one row at a time."""
    weight, first, second = (table.astype(np.float64) for table in (weight, first, second))
    rate = lr * np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    for row in set(rows.tolist()):
        g = grads[rows == row].astype(np.float64).sum(axis=0) + l2 * weight[row]
        first[row] = betas[0] * first[row] + (1 - betas[0]) * g
        second[row] = betas[1] * second[row] + (1 - betas[1]) * g**2
        weight[row] -= rate * first[row] / (np.sqrt(second[row]) + eps)
    return weight, first, second


def bell(count, std, seed):
    """The first values of a table: for each a 64-bit hash, cut into four uniform numbers that are added."""

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((seed + golden) & MASK)
    hashes = [mix((key + i * golden) & MASK) for i in range(count)]
    sums = [sum(h >> shift & 0xFFFF for shift in (0, 16, 32, 48)) for h in hashes]
    scale = np.float32(float(np.float32(std)) / math.sqrt((65536**2 - 1) / 3))
    return (np.array(sums) - 2 * 0xFFFF).astype(np.float32) * scale
