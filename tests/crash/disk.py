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
DIRECTORY = object()


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


class Disk:
    """The trace, played up to a moment."""

    def __init__(self, content):
        self.names = {path: DIRECTORY if data is None else File(data)
                      for path, data in content.items()}  # now
        self.durable = dict(self.names)
        self.pending = []  # (record, directory, [(path, what it is then)])
        self.files = {}
        self.when = 0

    def _rename(self, *changes):
        for path, what in changes:
            self.names.pop(path, None)
            if what is not None:
                self.names[path] = what
        folder = changes[0][0].rpartition("/")[0]
        self.pending.append((self.when, folder, changes))

    def _sync_directory(self, folder, begun):
        rest = []
        for entry in self.pending:
            if entry[1] == folder and entry[0] <= begun:
                self._apply(self.durable, entry[2])
            else:
                rest.append(entry)
        self.pending = rest

    @staticmethod
    def _apply(names, changes):
        for path, what in changes:
            names.pop(path, None)
            if what is not None:
                names[path] = what

    def play(self, r):
        self.when += 1
        path = r.data.decode(errors="replace") if r.kind in "ocsruk" else ""
        if r.kind == "o":
            self.files[r.file] = self.names[path]
        elif r.kind == "c":
            self.files[r.file] = File()
            self._rename((path, self.files[r.file]))
        elif r.kind in "wp":
            self.files[r.file].write(self.when, r.at, r.data)
        elif r.kind == "t":
            self.files[r.file].resize(self.when, r.at)
        elif r.kind == "s" and r.file >= 0:
            self.files[r.file].sync(r.at + 1, *struct.unpack("=QQ", r.data))
        elif r.kind == "s":
            self._sync_directory(path.rstrip("/"), r.at + 1)
        elif r.kind == "r":
            old, new = path.split("\0")
            self._rename((old, None), (new, self.names[old]))
        elif r.kind == "u":
            self._rename((path, None))
        elif r.kind == "k":
            self._rename((path, DIRECTORY))

    def _some_names(self, rng):
        names, held = dict(self.durable), set()
        share = rng.choice([0, 1, 1, 0.5])
        for _, folder, changes in self.pending:
            if held.isdisjoint(p for p, _ in changes) and rng.random() < share:
                self._apply(names, changes)
            else:
                held.update(p for p, _ in changes)
        return names

    def state(self, seed, tally):
        """What the disk has after a power cut now: path -> bytes, or None for a directory."""
        rng = random.Random(seed)
        names = self._some_names(rng)
        common = Mood(rng)
        out = {}
        for path in sorted(names):
            what, folder = names[path], path.rpartition("/")[0]
            if folder and (folder not in out or names[folder] is not DIRECTORY):
                continue
            mood = common if rng.random() < 0.7 else Mood(rng)
            out[path] = None if what is DIRECTORY else what.state(mood, tally)
        return out

    def now(self):
        """What a killed process leaves behind."""
        return {path: None if what is DIRECTORY else bytes(what.now)
                for path, what in self.names.items()}


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
