"""One side of a connection, plain or TLS.  Where TLS cuts what is written into records, and these into
segments, the bytes themselves decide.

recv() and send(data) wait; shut() sends the FIN.  An end is "close", over TLS with close_notify;
"notify", which is that alone; or "cut", the FIN alone.
"""

import asyncio
import contextlib
import random
import ssl

PAUSE = 0.0005  # after which a segment has mostly arrived alone


class Plain:
    def __init__(self, recv, send, shut):
        self.read, self.send, self.shut = recv, send, shut

    async def write(self, data, _=False):
        await self.send(data)

    async def end(self, _):
        self.shut()


def pieces(draw, data):
    """Mostly one; else cut at some points."""
    points = sorted(draw.choices(range(1 + len(data)), k=draw.choice([0, 0, 0, 1, 2, 5])))
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)]) if a < b]


class Tls:
    def __init__(self, recv, send, shut, context, **side):
        self.recv, self.send, self.shut = recv, send, shut
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # it would hide a cut
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **side)
        self.early = b""

    async def handshake(self):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
            await self.more()
        await self.flush()

    async def flush(self):
        if data := self.outgoing.read():
            await self.send(data)

    async def more(self):
        await self.flush()
        if data := await self.recv():
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def now(self):
        """What has come.  The end raises where this side has ended, too."""
        try:
            return self.tls.read(65536)
        except ssl.SSLZeroReturnError:
            return b""

    async def read(self):
        """b"" after close_notify; an end without it is an SSLError."""
        while not self.early:
            with contextlib.suppress(ssl.SSLWantReadError):
                return self.now()
            await self.more()
        data, self.early = self.early, b""
        return data

    async def write(self, data, at_once=False):
        """at_once: several records, and one segment."""
        draw = random.Random(data)
        for piece in pieces(draw, data):
            self.tls.write(piece)
        sealed = self.outgoing.read()
        for number, segment in enumerate([sealed] if at_once else pieces(draw, sealed)):
            await asyncio.sleep(PAUSE if number else 0)
            await self.send(segment)

    async def end(self, how):
        if how != "cut":
            self.notify()
            await self.flush()
        if how != "notify":
            self.shut()

    def notify(self):
        """What has come is read first: SSL_shutdown takes it for an error."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.now():
                self.early += data
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()


async def over(reader, writer, context=None, **side):
    """A channel over what asyncio has, its handshake done where there is a context."""
    async def send(data):
        writer.write(data)
        await writer.drain()

    sides = lambda: reader.read(65536), send, writer.write_eof
    if context is None:
        return Plain(*sides)
    tls = Tls(*sides, context, **side)
    await tls.handshake()
    return tls
