"""An output that grows chunk by chunk, and goes on where an earlier attempt ended.

While it is unfinished a note lies beside it, ``.NAME.unfinished``: what it belongs to, and how many
texts it holds in how many bytes. What stands behind these bytes was never noted, and is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bigner.errors import LaunchError, RunError, UserError
from bigner.run_dir import write_json


class GrowingFile:
    """A file and the note beside it, for the one process that writes.

    Args:
        path: of the file.
        belongs_to: all that decides what is in it, by names that a user knows.
    """

    def __init__(self, path: Path, belongs_to: Mapping[str, str]) -> None:
        self._path = path
        self._note = path.with_name(f".{path.name}.unfinished")
        self._belongs_to = dict(belongs_to)
        self._stream: IO[bytes] | None = None
        self._bytes = 0
        self.texts = 0
        """How many it holds."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing that counts is in it."""
        return self._bytes == 0

    def find(self) -> None:
        """See what an earlier attempt left; nothing is written yet.

        Raises:
            UserError: there is a file that is no unfinished part of this output.
        """
        if not os.path.lexists(self._path):
            return
        note = self._read_note()
        changed = [what for what, now in self._belongs_to.items() if note["of"].get(what) != now]
        if changed and note["texts"]:
            raise UserError(
                f"{self._path} is the unfinished output of another prediction "
                f"(not the same: {', '.join(changed)}); name a new file, or delete it and start "
                f"over"
            )
        if changed:
            return
        if self._path.stat().st_size < note["bytes"]:
            raise UserError(
                f"{self._path} is shorter than {self._note.name} says; delete it to start over"
            )
        self._bytes, self.texts = note["bytes"], note["texts"]

    def _read_note(self) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
            sound = (
                isinstance(note["of"], dict) and min(int(note["bytes"]), int(note["texts"])) >= 0
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound or not self._path.is_file():
            raise UserError(
                f"{self._path} is there already, and no unfinished output that could go on; name "
                f"a new file, nothing was changed"
            )
        return note

    def append(self, parts: Iterable[str], texts: int) -> None:
        """Write some more, and note it once it is on the disk.

        Args:
            parts: what is written.
            texts: how many of them end with it.

        Raises:
            LaunchError: another process is writing to the file.
            RunError: it cannot be written.
        """
        with self._writing():
            stream = self._opened()
            stream.writelines(part.encode() for part in parts)
            stream.flush()
            os.fsync(stream.fileno())
            self._bytes, self.texts = stream.tell(), self.texts + texts
            self._write_note()

    def finish(self, end: str) -> None:
        """Write what stands behind all texts; from now on the file is whole.

        Raises:
            RunError: it cannot be written.
        """
        with self._writing():
            stream = self._opened()
            stream.write(end.encode())
            stream.flush()
            os.fsync(stream.fileno())
            self._note.unlink(missing_ok=True)

    def _opened(self) -> IO[bytes]:
        if self._stream is not None:
            return self._stream
        if not os.path.lexists(self._path):
            # Before the file: without a note it would be nobody's.
            self._write_note()
        # Not to be closed here.
        stream = self._path.open("ab")
        try:
            with suppress(OSError):
                # Some file systems have no locks.
                self._lock(stream)
            stream.truncate(self._bytes)
            stream.seek(self._bytes)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return stream

    def _lock(self, stream: IO[bytes]) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LaunchError(
                f"another process is writing to {self._path}; wait for it, or name another file"
            ) from None

    def _write_note(self) -> None:
        note = {"of": self._belongs_to, "texts": self.texts, "bytes": self._bytes}
        write_json(self._note, note)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self._path} cannot be written: {error.strerror or error}; the same command goes "
                f"on behind the {self.texts:,} texts that it holds"
            ) from None

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            # Closing writes what could not be written before, and fails on it again.
            with suppress(OSError):
                self._stream.close()


class StandardOutput:
    """Standard output with the same verbs, which never goes on with anything."""

    def __init__(self) -> None:
        self.texts = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written yet."""
        return self.texts == 0

    def find(self) -> None:
        """There is nothing to find."""

    def append(self, parts: Iterable[str], texts: int) -> None:
        """Write some more.

        Raises:
            RunError: nobody reads it any more.
        """
        try:
            sys.stdout.buffer.writelines(part.encode() for part in parts)
            sys.stdout.buffer.flush()
        except OSError as error:
            # Else Python would try again when it leaves, and say so in its own way.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise RunError(f"standard output cannot be written: {error.strerror}") from None
        self.texts += texts

    def finish(self, end: str) -> None:
        """Write what stands behind all texts.

        Raises:
            RunError: as ``append``.
        """
        self.append([end], 0)

    def __enter__(self) -> StandardOutput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held."""
