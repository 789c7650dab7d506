"""A disk that loses its power: the states that a recorded trace (record.c) may leave behind.

The model, pessimistic where POSIX leaves a choice:

- What was written to a file, by write or through a mapping, is on the disk for certain only after an
  fsync, fdatasync or msync of that file that began later has ended.  Of what is not, each sector of
  512 bytes has, independently, any of the versions it had since; so has the file's size.  Beyond
  what was written a file is zeros.  A sector is never torn, and a disk that says it has synced has.
- A name that was made, renamed or removed is so for certain only after an fsync of the directory;
  syncing the file is not enough.  Of what is not, any part may have happened, but for each name in
  order; a rename is whole.

A state is chosen by a moment of the trace and a random seed.  What was chosen at random alone would
hardly ever be a whole old page, so a state has a mood: how large the pieces are that keep one
version together (a sector, a page, the file), and how likely the newest and the oldest are.
"""

import collections
import random
import struct

SECTOR = 512
HEAD = struct.Struct("=IiQQQ")
Record = collections.namedtuple("Record", "kind file at ns data")


def read_trace(path):
    raw, at, records = path.read_bytes(), 0, []
    while at < len(raw):
        kind, file, position, ns, n = HEAD.unpack_from(raw, at)
        at += HEAD.size
        records.append(Record(chr(kind), file, position, ns, raw[at:at + n]))
        at += n
    return records


class File:
    """A file's bytes now, and all versions that the disk may have."""

    def __init__(self, data=b""):
        self.now = bytearray(data)
        self.durable = 0                     # the record up to which all is synced
        self.sizes = [(0, len(data))]
        self.sectors = {}                    # number -> [(record, bytes)], where there is a choice

    def _sector(self, s):
        return bytes(self.now[s * SECTOR:(s + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def _change(self, when, begin, end, change):
        touched = range(begin // SECTOR, (end + SECTOR - 1) // SECTOR)
        for s in touched:
            self.sectors.setdefault(s, [(self.durable, self._sector(s))])
        change()
        for s in touched:
            self.sectors[s].append((when, self._sector(s)))

    def resize(self, when, size):
        old = len(self.now)
        if size < old:
            self._change(when, size, old, lambda: self.now.__delitem__(slice(size, None)))
        else:
            self.now.extend(bytes(size - old))
        if size != old:
            self.sizes.append((when, size))

    def write(self, when, at, data):
        if at + len(data) > len(self.now):
            self.resize(when, at + len(data))
        self._change(when, at, at + len(data),
                     lambda: self.now.__setitem__(slice(at, at + len(data)), data))

    def sync(self, begun, begin, end):
        def settle(versions):
            while len(versions) > 1 and versions[1][0] <= begun:
                versions.pop(0)

        self.durable = max(self.durable, begun)
        settle(self.sizes)
        for s, versions in list(self.sectors.items()):
            if begin <= s * SECTOR < end:
                settle(versions)
            if len(versions) == 1:
                del self.sectors[s]

    def state(self, mood, tally):
        """The bytes that the disk has of this file."""
        data = bytearray(self.now)
        pieces = collections.defaultdict(list)
        for s in self.sectors:
            pieces[s // mood.piece].append(s)
        torn = set()
        for sectors in pieces.values():
            when = mood.choose({w for s in sectors for w, _ in self.sectors[s]})
            for s in sectors:
                version = [v for w, v in self.sectors[s] if w <= when] or [self.sectors[s][0][1]]
                if s * SECTOR < len(data):
                    data[s * SECTOR:(s + 1) * SECTOR] = version[-1]
                if version[-1] != self.sectors[s][-1][1]:
                    torn.add(s // 8)
        tally["pages not as they were"] += len(torn)
        when = mood.choose({w for w, _ in self.sizes})
        size = [n for w, n in self.sizes if w <= when][-1]
        return bytes(data[:size].ljust(size, b"\0"))


class Mood:
    def __init__(self, rng):
        self.rng = rng
        self.piece = rng.choice([1, 1, 8, 8, 1 << 30])
        self.newest, self.oldest = rng.choice(
            [(1, 0), (0, 1), (0.5, 0.5), (0.4, 0.3), (0.9, 0.05), (0.05, 0.9), (0, 0)])

    def choose(self, versions):
        versions, r = sorted(versions), self.rng.random()
        if r < self.newest:
            return versions[-1]
        if r < self.newest + self.oldest:
            return versions[0]
        return self.rng.choice(versions)


class Folder:
    def __init__(self):
        self.names, self.durable = {}, {}


class Disk:
    """The trace, played up to a moment."""

    def __init__(self, content):
        self.root = Folder()
        self.pending = []  # (record, folder, [(folder, name, what it is then)])
        self.files = {}
        self.when = 0
        for path in sorted(content):
            folder, name = self._find(path)
            data = content[path]
            folder.names[name] = folder.durable[name] = Folder() if data is None else File(data)

    @property
    def names(self):
        return self.root.names

    def _find(self, path):
        *folders, name = path.split("/")
        folder = self.root
        for f in folders:
            folder = folder.names[f]
        return folder, name

    def _change(self, *changes):
        """What is certain when the folder of the last one is synced."""
        for folder, name, what in changes:
            self._set(folder.names, name, what)
        self.pending.append((self.when, changes[-1][0], changes))

    @staticmethod
    def _set(names, name, what):
        names.pop(name, None)
        if what is not None:
            names[name] = what

    def _sync_folder(self, synced, begun):
        rest = []
        for entry in self.pending:
            when, folder, changes = entry
            if folder is synced and when <= begun:
                for changed, name, what in changes:
                    self._set(changed.durable, name, what)
            else:
                rest.append(entry)
        self.pending = rest

    def play(self, r):
        self.when += 1
        path = r.data.decode(errors="replace") if r.kind in "ocsruk" else ""
        if r.kind == "o":
            folder, name = self._find(path)
            self.files[r.file] = folder.names[name]
        elif r.kind == "c":
            self.files[r.file] = File()
            self._change((*self._find(path), self.files[r.file]))
        elif r.kind in "wp":
            self.files[r.file].write(self.when, r.at, r.data)
        elif r.kind == "t":
            self.files[r.file].resize(self.when, r.at)
        elif r.kind == "s" and r.file >= 0:
            self.files[r.file].sync(r.at + 1, *struct.unpack("=QQ", r.data))
        elif r.kind == "s":
            folder, name = self._find(path.rstrip("/"))
            self._sync_folder(folder.names[name] if name else folder, r.at + 1)
        elif r.kind == "r":
            (folder, old), new = map(self._find, path.split("\0"))
            self._change((folder, old, None), (*new, folder.names[old]))
        elif r.kind == "u":
            self._change((*self._find(path), None))
        elif r.kind == "k":
            self._change((*self._find(path), Folder()))

    def _some_names(self, rng):
        """For each folder the names that the disk may have."""
        chosen, held = {}, set()
        share = rng.choice([0, 1, 1, 0.5])

        def names(folder):
            return chosen.setdefault(folder, dict(folder.durable))

        for _, _, changes in self.pending:
            touched = {(folder, name) for folder, name, _ in changes}
            if held.isdisjoint(touched) and rng.random() < share:
                for folder, name, what in changes:
                    self._set(names(folder), name, what)
            else:
                held |= touched
        return names

    def _walk(self, names, read, folder=None, prefix=""):
        there = names(folder or self.root)
        for name in sorted(there):
            path, what = prefix + name, there[name]
            if isinstance(what, Folder):
                yield path, None
                yield from self._walk(names, read, what, path + "/")
            else:
                yield path, read(what)

    def state(self, seed, tally):
        """What the disk has after a power cut now: path -> bytes, or None for a directory."""
        rng = random.Random(seed)
        names, common = self._some_names(rng), Mood(rng)

        def read(file):
            return file.state(common if rng.random() < 0.7 else Mood(rng), tally)

        return dict(self._walk(names, read))

    def now(self):
        """What a killed process leaves behind."""
        return dict(self._walk(lambda folder: folder.names, lambda file: bytes(file.now)))


def make(folder, content):
    folder.mkdir()
    for path in sorted(content):
        if content[path] is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content[path])


def take(folder):
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes()
            for p in folder.rglob("*")}
