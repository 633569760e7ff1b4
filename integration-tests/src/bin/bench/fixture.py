"""What the store's benchmarks need: OCI layouts of given layers, stores of many blobs, cold files.

fixture.py layout DIR TAR BLOB [TAR BLOB]...   one image of these layers, packed as they are
fixture.py tiny DIR COUNT                      one image of COUNT layers of a file each
fixture.py many STORE IMAGES LAYERS NAMES      a store's folder with that many images of as many layers, and names of them
fixture.py forget STORE                        takes from the names' records what listings show, as in older stores
fixture.py cold                                lets the kernel forget all files: content, names and inodes, as after a start
fixture.py cold-content DIR...                 lets the kernel forget the content of the files in DIR
fixture.py cached DIR...                       reads all files of each DIR, and prints how many bytes the kernel keeps of them
"""
import glob, gzip, hashlib, io, json, os, sys, tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(path):
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def put(blobs, data):
    name = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, name), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + name, "size": len(data)}


def image(blobs, layers, diff_ids, note=""):
    config = {"architecture": "amd64", "os": "linux", "author": note, "config": {"Cmd": ["/bin/true"]},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = put(blobs, json.dumps(config).encode())
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, **config}, "layers": layers}
    return {"mediaType": MANIFEST, **put(blobs, json.dumps(manifest).encode())}


def layout(folder, layers, diff_ids):
    described = image(os.path.join(folder, "blobs/sha256"), layers, diff_ids)
    with open(os.path.join(folder, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    with open(os.path.join(folder, "index.json"), "w") as file:
        described["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
        json.dump({"schemaVersion": 2, "manifests": [described]}, file)


def given(folder, pairs):
    blobs = os.path.join(folder, "blobs/sha256")
    os.makedirs(blobs)
    layers, diff_ids = [], []
    for tar, blob in zip(pairs[::2], pairs[1::2]):
        name = digest(blob)
        os.link(blob, os.path.join(blobs, name.removeprefix("sha256:")))
        packing = "+zstd" if blob.endswith(".zst") else "+gzip"
        layers.append({"mediaType": LAYER + packing, "digest": name, "size": os.path.getsize(blob)})
        diff_ids.append(digest(tar))
    layout(folder, layers, diff_ids)


def tiny(folder, count):
    blobs = os.path.join(folder, "blobs/sha256")
    os.makedirs(blobs)
    layers, diff_ids = [], []
    for number in range(count):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(f"file{number}"))
        layers.append({"mediaType": LAYER + "+gzip", **put(blobs, gzip.compress(tar.getvalue(), mtime=0))})
        diff_ids.append("sha256:" + hashlib.sha256(tar.getvalue()).hexdigest())
    layout(folder, layers, diff_ids)


def many(store, images, layers, names):
    blobs = os.path.join(store, "blobs/sha256")
    targets = []
    for number in range(images):
        named = [{"mediaType": LAYER + "+gzip", **put(blobs, b"%d/%d" % (number, layer))} for layer in range(layers)]
        diff_ids = ["sha256:" + hashlib.sha256(b"tar %d/%d" % (number, layer)).hexdigest() for layer in range(layers)]
        targets.append(image(blobs, named, diff_ids, str(number)))
    for number in range(names):
        name = f"registry.example/team/image{number}:latest"
        target = targets[number % images]
        record = {"name": name, "target": target, "summary": summary(blobs, target), "updated": "2026-01-01T00:00:00Z"}
        with open(os.path.join(store, "refs", name.replace("/", "%2F")), "w") as file:
            json.dump(record, file)


def summary(blobs, target):
    """What the store writes down of an image when it gives it a name."""
    with open(os.path.join(blobs, target["digest"].removeprefix("sha256:"))) as file:
        manifest = json.load(file)
    size = manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    return {"id": manifest["config"]["digest"], "manifest": target["digest"], "architecture": "amd64", "os": "linux",
            "layers": len(manifest["layers"]), "size": size}


def forget(store):
    for path in glob.glob(os.path.join(store, "refs", "*")):
        with open(path) as file:
            record = json.load(file)
        del record["summary"]
        with open(path, "w") as file:
            json.dump(record, file)


def files(folder):
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def cold():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def cold_content(folders):
    os.sync()
    for path in (path for folder in folders for path in files(folder)):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def cached(folders):
    """The kernel counts pages for the control group that first asked for them: a new one knows what these reads brought.
    Names and inodes are looked up before, so that they count for neither: ext4's lie in its disk's own cache."""
    paths = [path for folder in folders for path in files(folder)]
    root = "/sys/fs/cgroup/memory"
    own, field = (root, "total_cache") if os.path.exists(root) else ("/sys/fs/cgroup", "file")
    group = os.path.join(own, "teu-bench-%d" % os.getpid())
    os.mkdir(group)
    try:
        reader = os.fork()
        if reader == 0:
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write("0")
            buffer = bytearray(1 << 20)
            for path in paths:
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
            os._exit(0)
        assert os.waitpid(reader, 0)[1] == 0
        with open(os.path.join(group, "memory.stat")) as file:
            print(dict(line.split() for line in file)[field])
    finally:
        os.rmdir(group)


command, rest = sys.argv[1], sys.argv[2:]
if command == "layout":
    given(rest[0], rest[1:])
elif command == "tiny":
    tiny(rest[0], int(rest[1]))
elif command == "many":
    many(rest[0], *map(int, rest[1:]))
else:
    {"forget": lambda: forget(rest[0]), "cold": cold, "cold-content": lambda: cold_content(rest), "cached": lambda: cached(rest)}[command]()
