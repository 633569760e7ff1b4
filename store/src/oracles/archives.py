"""Writes archives of all kinds and says what Python's tarfile reads in them.

    archives.py FOLDER COUNT SEED

FOLDER/N.tar is archive N; standard output has a JSON list of its members a line, each
[path, kind, mode, uid, gid, seconds, size, target, sha256 of the content], texts in hex.
Most are written by tarfile itself, every third by GNU tar from files.
"""

import hashlib, io, json, os, random, shutil, subprocess, sys, tarfile

folder, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def name(rng, limit):
    length = rng.choice([1, 3, 8, 20, 60, 99, 100, 101, 150, 200])
    letters = "abcdefghij -_~+=,;%@!" + "äß☃"
    text = "".join(rng.choice(letters) for _ in range(min(length, limit)))
    text = text.strip() or "x"
    while len(text.encode()) > min(limit, 250):
        text = text[:-1]
    return text


def size(rng):
    return rng.choice([0, 1, 511, 512, 513, 1024, 5000, 70000])


def random_members(rng, form):
    """Members whose parents come first, as packers write them."""
    limit = 40 if form == tarfile.USTAR_FORMAT else 250
    folders, files, used = [""], [], set()
    for _ in range(rng.randrange(1, 25)):
        parent = rng.choice(folders)
        if len(parent) > (60 if form == tarfile.USTAR_FORMAT else 2000):
            parent = ""
        path = parent + name(rng, limit)
        if path in used:
            continue
        used.add(path)
        info = tarfile.TarInfo(path)
        info.mode = rng.choice([0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0, 0o7777])
        big = 2097151 if form == tarfile.USTAR_FORMAT else 4000000000
        info.uid, info.gid = rng.choice([0, 1, 1000, 2097151, big]), rng.choice([0, 7, 65534, big])
        info.mtime = rng.choice([0, 1, 1000000000, 1700000000, 8589934591])
        if form == tarfile.PAX_FORMAT and rng.random() < 0.3:
            info.mtime = 1234567890
            info.pax_headers["mtime"] = "1234567890.%09d" % rng.randrange(1, 10**9)
        if form == tarfile.PAX_FORMAT and rng.random() < 0.3:
            info.pax_headers["SCHILY.xattr.user.key%d" % rng.randrange(5)] = "v" * rng.randrange(1, 300)
        content = b""
        kind = rng.choice("fffffddslhcbp")
        if kind == "h" and not files:
            kind = "f"
        if kind == "f":
            content = rng.randbytes(size(rng))
            info.size = len(content)
            files.append(path)
        elif kind == "d":
            info.type = tarfile.DIRTYPE
            info.mode |= 0o700
            folders.append(path + "/")
        elif kind == "s" or kind == "l":
            info.type = tarfile.SYMTYPE
            info.mode = 0o777
            info.linkname = name(rng, limit)
            info.pax_headers.pop("SCHILY.xattr.user.key0", None)
            info.pax_headers = {k: v for k, v in info.pax_headers.items() if k == "mtime"}
        elif kind == "h":
            info.type, info.linkname = tarfile.LNKTYPE, rng.choice(files)
            info.pax_headers = {}
        else:
            info.type = {"c": tarfile.CHRTYPE, "b": tarfile.BLKTYPE, "p": tarfile.FIFOTYPE}[kind]
            info.devmajor, info.devminor = (rng.choice([1, 8, 200]), rng.choice([3, 255])) if kind != "p" else (0, 0)
            info.pax_headers = {k: v for k, v in info.pax_headers.items() if k == "mtime"}
        yield info, content


def by_tarfile(path, rng):
    form = rng.choice(FORMATS)
    with tarfile.open(path, "w", format=form, encoding="utf-8") as out:
        for info, content in random_members(rng, form):
            out.addfile(info, io.BytesIO(content))


def by_gnu(path, rng):
    root = path + ".d"
    os.mkdir(root)
    paths = []
    for number in range(rng.randrange(1, 12)):
        parent = rng.choice([""] + [p for p in paths if os.path.isdir(os.path.join(root, p))])
        new = os.path.join(parent, "%d%s" % (number, name(rng, 40)))
        full = os.path.join(root, new)
        kind = rng.choice("ffffdslh")
        if kind == "d":
            os.mkdir(full)
        elif kind == "l":
            os.symlink(name(rng, 200), full)
        elif kind == "h" and any(os.path.isfile(os.path.join(root, p)) and not os.path.islink(os.path.join(root, p)) for p in paths):
            target = next(p for p in paths if os.path.isfile(os.path.join(root, p)) and not os.path.islink(os.path.join(root, p)))
            os.link(os.path.join(root, target), full)
        else:
            with open(full, "wb") as file:
                if kind == "s":
                    for _ in range(rng.randrange(1, 6)):
                        file.seek(rng.randrange(0, 40) * 4096 + rng.choice([0, 0, 100]))
                        file.write(rng.randbytes(rng.choice([1, 600, 4096])))
                    file.truncate(rng.randrange(200000, 300000))
                else:
                    file.write(rng.randbytes(size(rng)))
        paths.append(new)
    form = rng.choice(["gnu", "pax", "oldgnu"])
    sparse = rng.choice([[], ["--sparse"]] + ([["--sparse", "--sparse-version=%s" % v] for v in ("0.0", "0.1", "1.0")] if form == "pax" else []))
    subprocess.run(["tar", "-C", root, "--format", form, "--numeric-owner", *sparse, "-cf", path, *sorted(os.listdir(root))], check=True)
    shutil.rmtree(root)


def told(path):
    kinds = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "s", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
    members = []
    with tarfile.open(path, encoding="utf-8") as archive:
        for info in archive:
            kind = kinds.get(info.type, "f")
            content = archive.extractfile(info).read() if kind == "f" else b""
            text = lambda s: s.encode("utf-8", "surrogateescape").hex()
            link = info.linkname if kind in "sh" else ""
            # tarfile forgets the name of a sparse file that is long.
            name = info.pax_headers.get("GNU.sparse.name", info.name)
            members.append([text(name), kind, info.mode, info.uid, info.gid, int(info.mtime), len(content), text(link), hashlib.sha256(content).hexdigest()])
    return members


for number in range(count):
    rng = random.Random(seed * 1000003 + number)
    path = os.path.join(folder, "%d.tar" % number)
    (by_gnu if number % 3 == 2 else by_tarfile)(path, rng)
    print(json.dumps(told(path)))
