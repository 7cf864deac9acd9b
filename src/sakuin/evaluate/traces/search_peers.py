"""Other libraries' nearest-neighbour search on one KV head's keys, for `sakuin.evaluate.compare_search`:
Faiss and hnswlib, with the inner product as their metric.

Run as a script in a process of its own, which never imports torch or sakuin: Faiss brings an OpenMP runtime,
and two in one process fight over the cores. The folder in its one argument, a JSON object, holds `keys.npy`
`(n, head_dim)` and `queries.npy` `(positions, group, head_dim)`, both fp32; for each setting of the method
the script writes `ids-<number>.npy` `(positions, group, k)` there and one JSON line to standard output.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

WARM = 3
Numbers = np.ndarray[Any, Any]


@dataclass
class Searched:
    """One setting of a built index.

    search : ids `(group, k)` of queries `(group, head_dim)`.
    scanned : inner products since the last call, or None where the library does not tell.
    """

    setting: str
    search: Callable[[Numbers, int], Numbers]
    scanned: Callable[[], int | None] = lambda: None


@dataclass
class Built:
    nbytes: int
    settings: Iterator[Searched]


def _faiss(threads: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(threads)
    return faiss


def _size(faiss: Any, index: Any) -> int:
    size: int = faiss.serialize_index(index).nbytes
    return size


def flat(keys: Numbers, threads: int) -> Built:
    """Faiss, every key in fp32."""
    faiss = _faiss(threads)
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys)
    return Built(_size(faiss, index), iter([Searched("", lambda q, k: index.search(q, k)[1])]))


def _lists(n: int) -> int:
    """Faiss' own advice: some four times the root of the number of keys, 39 keys a list at least."""
    return max(1, min(round(4 * math.sqrt(n)), n // 39))


def _probes(lists: int) -> list[int]:
    return [p for p in (4, 8, 16, 32, 64, 128, 256, 512, 1024) if p < lists] + [lists]


def ivf(keys: Numbers, threads: int) -> Built:
    """Faiss, k-means lists of keys in fp32."""
    faiss = _faiss(threads)
    n, d = keys.shape
    lists = _lists(n)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
    index.train(keys)
    index.add(keys)
    faiss.cvar.indexIVF_stats.reset()

    def scanned() -> int:
        stats = faiss.cvar.indexIVF_stats
        found = int(stats.ndis) + int(stats.nq) * lists
        stats.reset()
        return found

    def settings() -> Iterator[Searched]:
        for nprobe in _probes(lists):
            index.nprobe = nprobe
            yield Searched(f"nprobe {nprobe} of {lists}", lambda q, k: index.search(q, k)[1], scanned)

    return Built(_size(faiss, index), settings())


def hnsw(keys: Numbers, threads: int) -> Built:
    """Faiss, a graph of 32 links a key."""
    faiss = _faiss(threads)
    index = faiss.IndexHNSWFlat(keys.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.add(keys)
    faiss.cvar.hnsw_stats.reset()

    def scanned() -> int:
        found = int(faiss.cvar.hnsw_stats.ndis)
        faiss.cvar.hnsw_stats.reset()
        return found

    def settings() -> Iterator[Searched]:
        for ef in (128, 256, 512, 1024, 2048, 4096):
            index.hnsw.efSearch = ef
            yield Searched(f"ef {ef}", lambda q, k: index.search(q, k)[1], scanned)

    return Built(_size(faiss, index), settings())


def _refined(faiss: Any, base: Any, keys: Numbers) -> Any:
    index = faiss.IndexRefineFlat(base)
    index.train(keys)
    index.add(keys)
    return index


def _pq(per_dim: int) -> Callable[[Numbers, int], Built]:
    def build(keys: Numbers, threads: int) -> Built:
        faiss = _faiss(threads)
        d = keys.shape[1]
        base = faiss.IndexPQFastScan(d, d * per_dim // 4, 4, faiss.METRIC_INNER_PRODUCT)
        index = _refined(faiss, base, keys)

        def settings() -> Iterator[Searched]:
            for factor in (2, 4, 8, 16, 32, 64, 128):
                index.k_factor = factor
                yield Searched(f"k_factor {factor}", lambda q, k: index.search(q, k)[1])

        return Built(_size(faiss, index), settings())

    build.__doc__ = f"""Faiss, {per_dim} bits a dimension scanned in registers, then true keys."""
    return build


def ivf_pq(keys: Numbers, threads: int) -> Built:
    """Faiss, k-means lists of keys in 2 bits a dimension scanned in registers, then true keys."""
    faiss = _faiss(threads)
    n, d = keys.shape
    lists = _lists(n)
    base = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(d), d, lists, d // 2, 4, faiss.METRIC_INNER_PRODUCT)
    index = _refined(faiss, base, keys)

    def settings() -> Iterator[Searched]:
        for factor in (16, 64):
            for nprobe in _probes(lists)[2:]:
                index.k_factor, base.nprobe = factor, nprobe
                setting = f"nprobe {nprobe} of {lists}, k_factor {factor}"
                yield Searched(setting, lambda q, k: index.search(q, k)[1])

    return Built(_size(faiss, index), settings())


def hnswlib_graph(keys: Numbers, threads: int) -> Built:
    """hnswlib, a graph of 32 links a key; it searches a few queries on one thread, whatever it is told."""
    import hnswlib

    index = hnswlib.Index("ip", keys.shape[1])
    index.init_index(len(keys), ef_construction=200, M=32)
    index.set_num_threads(threads)
    index.add_items(keys)

    def search(ef: int, q: Numbers, k: int) -> Numbers:
        index.set_ef(max(ef, k))  # below k it refuses
        ids: Numbers = index.knn_query(q, k)[0].astype(np.int64)
        return ids

    def settings() -> Iterator[Searched]:
        for ef in (128, 256, 512, 1024, 2048, 4096):
            yield Searched(f"ef {ef}", partial(search, ef))

    return Built(int(index.index_file_size()), settings())


PEERS: dict[str, Callable[[Numbers, int], Built]] = {
    "Faiss Flat": flat,
    "Faiss IVF": ivf,
    "Faiss HNSW": hnsw,
    "Faiss PQ fast-scan, 1 bit, refined": _pq(1),
    "Faiss PQ fast-scan, 2 bits, refined": _pq(2),
    "Faiss IVF, PQ fast-scan, refined": ivf_pq,
    "hnswlib": hnswlib_graph,
}


def measure(folder: Path, method: str, threads: int, k: int) -> Iterator[dict[str, Any]]:
    """Build and search; what is yielded is printed for the caller."""
    keys, queries = np.load(folder / "keys.npy"), np.load(folder / "queries.npy")
    started = perf_counter()
    built = PEERS[method](keys, threads)
    build_s = perf_counter() - started
    for number, searched in enumerate(built.settings):
        for q in queries[:WARM]:
            searched.search(q, k)
        searched.scanned()
        ids, times = [], []
        for q in queries:
            started = perf_counter()
            ids.append(searched.search(q, k))
            times.append(perf_counter() - started)
        scanned = searched.scanned()
        np.save(folder / f"ids-{number}.npy", np.stack(ids))
        yield {
            "setting": searched.setting,
            "search_ms": statistics.median(times) * 1e3,
            "scanned": None
            if scanned is None
            else scanned / (queries.shape[0] * queries.shape[1] * len(keys)),
            "build_s": build_s,
            "nbytes": built.nbytes,
            "ids": f"ids-{number}.npy",
        }


def main() -> None:
    """Entry point of the process: one JSON object as argument, see the module's text."""
    given = json.loads(sys.argv[1])
    for row in measure(Path(given["folder"]), given["method"], given["threads"], given["k"]):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
