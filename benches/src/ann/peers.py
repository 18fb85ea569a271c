"""One other library, measured for `cairn-bench ann`, `ivf` and `filters`: builds an index over the same vectors and answers the same
queries.

    python3 peers.py PEER DIRECTORY METRIC [LISTS]

DIRECTORY holds base.f32 and queries.f32 (rows of little-endian floats) and shape.json. Commands come on standard input, one a
line, and each is answered by one line of JSON on standard output:

    build THREADS           {"build_s": .., "rss_mb": .., "disk_mb": ..}
    search VALUE THREADS    {"seconds": ..}; the ids stand in DIRECTORY/PEER.ids, 10 int32 a query
    filtered HOW            {"ms": [..]} of each query, one by one on one thread; the ids as above

If shape.json says {"fields": [names]}, each row has so many numbers, which stand in fields.i32 (rows of little-endian int32), are
stored with it and indexed. `filtered` asks for the rows of a range of them: filters.json has {"field": name, "from": n, "below": n} for
each query, of which either bound may be null. HOW is "default", or what else the library can be told to do about filters.

The first line says {"values": [..]}, the settings to sweep, or {"skip": why}. All queries are one call where the library
takes them so.
"""

import gc
import json
import os
import sys
import tempfile
import time

PEER, DIRECTORY, METRIC = sys.argv[1:4]
# Of those that have inverted lists.
LISTS = int(sys.argv[4]) if len(sys.argv) > 4 else 512
K = 10
# Questions before those that are timed one by one.
WARM = 20
EFS = [10, 14, 20, 28, 40, 56, 80, 120, 180, 260, 380]
# What a library prints must not be taken for an answer.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(answer):
    print(json.dumps(answer), file=ANSWERS, flush=True)


def resident_mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def bytes_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path) for f in files)


class Hnswlib:
    values = EFS

    def build(self, base, threads):
        import hnswlib

        self.index = hnswlib.Index(space="l2" if METRIC == "euclid" else "ip", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), ef_construction=200, M=16)
        self.index.add_items(base, num_threads=threads)

    def save(self, path):
        self.index.save_index(path)

    def search(self, queries, value, threads):
        self.index.set_ef(value)
        return self.index.knn_query(queries, k=K, num_threads=threads)[0]


class Faiss:
    def metric(self):
        import faiss

        return faiss.METRIC_L2 if METRIC == "euclid" else faiss.METRIC_INNER_PRODUCT

    def save(self, path):
        import faiss

        faiss.write_index(self.index, path)


class FaissHnsw(Faiss):
    values = EFS

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexHNSWFlat(base.shape[1], 16, self.metric())
        self.index.hnsw.efConstruction = 200
        self.index.add(base)

    def search(self, queries, value, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = value
        return self.index.search(queries, K)[1]


def packed(rows):
    """Rows of zeros and ones, eight to a byte."""
    import numpy

    return numpy.packbits(rows.astype(numpy.uint8), axis=1)


class FaissBinaryHnsw:
    values = EFS

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexBinaryHNSW(base.shape[1], 16)
        self.index.hnsw.efConstruction = 200
        self.index.add(packed(base))

    def save(self, path):
        import faiss

        faiss.write_index_binary(self.index, path)

    def search(self, queries, value, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = value
        return self.answers(queries)

    def answers(self, queries):
        queries = packed(queries)
        self.began = time.perf_counter()
        return self.index.search(queries, K)[1]


class FaissBinaryIvf(FaissBinaryHnsw):
    values = [2, 4, 8, 16, 32, 64, 128]

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.centres = faiss.IndexBinaryFlat(base.shape[1])
        self.index = faiss.IndexBinaryIVF(self.centres, base.shape[1], LISTS)
        self.index.train(packed(base))
        self.index.add(packed(base))

    def search(self, queries, value, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index.nprobe = value
        return self.answers(queries)


class FaissIvfpq(Faiss):
    values = [2, 4, 8, 16, 32, 64, 128]

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        pieces = next(p for p in (4, 2, 1) if base.shape[1] % p == 0)
        self.index = faiss.index_factory(
            base.shape[1], f"IVF{LISTS},PQ{base.shape[1] // pieces}x4fs,RFlat", self.metric()
        )
        self.index.train(base)
        self.index.add(base)
        self.index.k_factor = 8

    def search(self, queries, value, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        faiss.extract_index_ivf(self.index).nprobe = value
        return self.index.search(queries, K)[1]


class FaissIvfsq8(FaissIvfpq):
    """A byte a dimension, as ours, without measuring again."""

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(base.shape[1], f"IVF{LISTS},SQ8", self.metric())
        self.index.train(base)
        self.index.add(base)


class FaissIvfflat(FaissIvfpq):
    """The vectors themselves in the lists."""

    def build(self, base, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(base.shape[1], f"IVF{LISTS},Flat", self.metric())
        self.index.train(base)
        self.index.add(base)


class Usearch:
    values = EFS

    def build(self, base, threads):
        import numpy
        from usearch.index import Index

        metric, dtype = {"euclid": ("l2sq", "f32"), "cosine": ("cos", "i8"), "hamming": ("hamming", "b1")}[METRIC]
        self.index = Index(
            ndim=base.shape[1],
            metric=metric,
            dtype=dtype,
            connectivity=16,
            expansion_add=200,
        )
        self.index.add(numpy.arange(len(base)), self.given(base), threads=threads)

    def given(self, rows):
        return packed(rows) if METRIC == "hamming" else rows

    def save(self, path):
        self.index.save(path)

    def search(self, queries, value, threads):
        self.index.expansion_search = value
        queries = self.given(queries)
        self.began = time.perf_counter()
        return self.index.search(queries, K, threads=threads).keys


class Svs:
    values = EFS

    def build(self, base, threads):
        import svs

        distance = svs.DistanceType.L2 if METRIC == "euclid" else svs.DistanceType.MIP
        alpha = 1.2 if METRIC == "euclid" else 0.95
        parameters = svs.VamanaBuildParameters(alpha=alpha, graph_max_degree=32, window_size=200)
        with tempfile.TemporaryDirectory(dir=DIRECTORY) as d:
            path = os.path.join(d, "base.fvecs")
            svs.write_vecs(base, path)
            loader = svs.LVQLoader(svs.VectorDataLoader(path, svs.DataType.float32, dims=base.shape[1]), primary=8)
            self.index = svs.Vamana.build(parameters, loader, distance, num_threads=threads)

    def save(self, path):
        os.mkdir(path)
        self.index.save(*(os.path.join(path, part) for part in ("config", "graph", "data")))

    def search(self, queries, value, threads):
        self.index.num_threads = threads
        self.index.search_window_size = value
        return self.index.search(queries, K)[0]


class Symphonyqg:
    """Its rotation is for 64 dimensions and more: zeros, which change no distance, fill them up."""

    values = EFS

    def build(self, base, threads):
        from rabitqlib import SymqgIndex

        base = self.filled(base)
        self.index = SymqgIndex(base.shape[1], 32, "l2" if METRIC == "euclid" else "ip")
        self.index.build(base, 200, threads)

    def filled(self, rows):
        import numpy

        missing = max(0, 64 - rows.shape[1])
        return numpy.ascontiguousarray(numpy.pad(rows, ((0, 0), (0, missing)))) if missing else rows

    def save(self, path):
        self.index.save(path)

    def search(self, queries, value, threads):
        queries = self.filled(queries)
        self.began = time.perf_counter()
        return self.index.search(queries, K, value, threads)[0]


class QdrantEdge:
    """Requests are made before the clock starts; its search pool runs a request on one thread."""

    values = [10, 16, 32, 64, 128, 256]
    threads = [1]
    # Names of the fields, and a row of numbers for each point.
    fields, numbers = [], None

    def build(self, base, threads):
        import qdrant_edge as q

        self.place = tempfile.TemporaryDirectory(dir=DIRECTORY)
        distance = q.Distance.Euclid if METRIC == "euclid" else q.Distance.Cosine
        config = q.EdgeConfig(
            vectors=q.EdgeVectorParams(size=base.shape[1], distance=distance),
            # Without filters the graph is what is measured; with filters its own default says (in kB) when a scan is better.
            hnsw_config=q.HnswIndexConfig(16, 200, 10_000 if self.fields else 1, max_indexing_threads=threads),
            quantization_config=q.ScalarQuantizationConfig(q.ScalarType.Int8, always_ram=True),
            optimizers=q.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
            max_search_threads=1,
        )
        self.shard = q.EdgeShard.create(self.place.name, config)
        # Before the graph is built, which gets links of its own for rows that share a stretch of an indexed field.
        for field in self.fields:
            self.shard.update(q.UpdateOperation.create_field_index(field, q.PayloadSchemaType.Integer))

        def payload(row):
            return dict(zip(self.fields, self.numbers[row].tolist())) if self.fields else None

        for start in range(0, len(base), 5000):
            rows = base[start : start + 5000]
            points = [q.Point(start + i, row.tolist(), payload(start + i)) for i, row in enumerate(rows)]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        while self.shard.optimize():
            pass

    def save(self, path):
        self.shard.flush()
        os.symlink(self.place.name, path)

    def search(self, queries, value, threads):
        import numpy
        import qdrant_edge as q

        params = q.SearchParams(hnsw_ef=value, quantization=q.QuantizationSearchParams(rescore=True, oversampling=1.5))
        requests = [q.SearchRequest(q.Query.Nearest(row.tolist()), K, params=params) for row in queries]
        self.began = time.perf_counter()
        found = [self.shard.search(request) for request in requests]
        return self.ids(found)

    def ids(self, found):
        import numpy

        ids = numpy.full((len(found), K), -1)
        for i, hits in enumerate(found):
            ids[i, : len(hits)] = [hit.id for hit in hits]
        return ids

    def filtered(self, queries, filters, how):
        """"default": no `hnsw_ef` is said, so it is that of the build. "acorn": walks look through rows that do not match."""
        import qdrant_edge as q

        params = q.SearchParams(
            quantization=q.QuantizationSearchParams(rescore=True, oversampling=1.5),
            acorn=q.AcornSearchParams(enable=how == "acorn"),
        )
        requests = []
        for row, wanted in zip(queries, filters):
            range_ = q.RangeFloat(gte=wanted["from"], lt=wanted["below"])
            condition = q.FieldCondition(wanted["field"], range=range_)
            query = q.Query.Nearest(row.tolist())
            requests.append(q.SearchRequest(query, K, params=params, filter=q.Filter(must=[condition])))
        for request in requests[:WARM]:
            self.shard.search(request)
        found, took = [], []
        for request in requests:
            began = time.perf_counter()
            found.append(self.shard.search(request))
            took.append((time.perf_counter() - began) * 1e3)
        return self.ids(found), took


PEERS = {
    "hnswlib": Hnswlib,
    "faiss-hnsw": FaissHnsw,
    "faiss-ivfpq": FaissIvfpq,
    "faiss-ivfsq8": FaissIvfsq8,
    "faiss-ivfflat": FaissIvfflat,
    "faiss-binary-hnsw": FaissBinaryHnsw,
    "faiss-binary-ivf": FaissBinaryIvf,
    "usearch": Usearch,
    "svs": Svs,
    "symphonyqg": Symphonyqg,
    "qdrant-edge": QdrantEdge,
}
MODULES = {
    "hnswlib": "hnswlib",
    "faiss-hnsw": "faiss",
    "faiss-ivfpq": "faiss",
    "faiss-ivfsq8": "faiss",
    "faiss-ivfflat": "faiss",
    "faiss-binary-hnsw": "faiss",
    "faiss-binary-ivf": "faiss",
    "usearch": "usearch",
    "svs": "svs",
    "symphonyqg": "rabitqlib",
    "qdrant-edge": "qdrant_edge",
}


# Those that compare bits and nothing else, and those that compare bits, too.
ONLY_BITS, ALSO_BITS = ["faiss-binary-hnsw", "faiss-binary-ivf"], ["usearch"]


def main():
    if PEER in ONLY_BITS if METRIC != "hamming" else PEER not in ONLY_BITS + ALSO_BITS:
        return say({"skip": f"it is not for {METRIC}"})
    try:
        import numpy

        __import__(MODULES[PEER])
    except ImportError as error:
        return say({"skip": str(error)})
    with open(os.path.join(DIRECTORY, "shape.json")) as f:
        shape = json.load(f)

    def rows(name, count):
        return numpy.fromfile(os.path.join(DIRECTORY, name), dtype="<f4").reshape(count, shape["dim"])

    base, queries = rows("base.f32", shape["rows"]), rows("queries.f32", shape["queries"])
    peer = PEERS[PEER]()
    if shape.get("fields"):
        numbers = numpy.fromfile(os.path.join(DIRECTORY, "fields.i32"), dtype="<i4")
        peer.fields, peer.numbers = shape["fields"], numbers.reshape(len(base), -1)

    def write(ids):
        numpy.asarray(ids).astype("<i4").tofile(os.path.join(DIRECTORY, f"{PEER}.ids"))

    say({"values": peer.values, "threads": getattr(peer, "threads", [1, 2])})
    for line in sys.stdin:
        command = line.split()
        if command[0] == "build":
            gc.collect()
            before, began = resident_mb(), time.perf_counter()
            peer.build(base, int(command[1]))
            took = time.perf_counter() - began
            gc.collect()
            resident = resident_mb() - before
            # What the library keeps is its own: ours goes.
            with tempfile.TemporaryDirectory(dir=DIRECTORY) as d:
                path = os.path.join(d, "index")
                peer.save(path)
                disk = bytes_of(os.path.realpath(path)) / 2**20
            say({"build_s": took, "rss_mb": resident, "disk_mb": disk})
        elif command[0] == "search":
            peer.began = time.perf_counter()
            ids = peer.search(queries, int(command[1]), int(command[2]))
            seconds = time.perf_counter() - peer.began
            write(ids)
            say({"seconds": seconds})
        elif command[0] == "filtered":
            with open(os.path.join(DIRECTORY, "filters.json")) as f:
                ids, took = peer.filtered(queries, json.load(f), command[1])
            write(ids)
            say({"ms": took})


main()
