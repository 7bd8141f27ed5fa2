import errno
import os
import socket
import tempfile
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry import sharedmemory
from txmux.telemetry.sharedmemory import SharedMemoryError, grow, make, mapped


class SharedMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = make("test")
        self.addCleanup(os.close, self.file)

    def test_shared_and_only_grows(self) -> None:
        os.ftruncate(self.file, 4096)
        one, other = (mapped(self.file, 4096) for _ in range(2))
        one[100] = 7
        self.assertEqual(other[100], 7)
        # It may become larger, but no process that has it can make it smaller, which would end all others by SIGBUS.
        self.assertRaises(PermissionError, os.ftruncate, self.file, 0)
        os.ftruncate(self.file, 8192)
        self.assertEqual(len(mapped(self.file, 8192)), 8192)
        with tempfile.TemporaryFile() as unsealed:  # larger file of others may grow
            for file in (self.file, unsealed.fileno()):
                os.ftruncate(file, 8192)
                grow(file, 4096)
                self.assertEqual(os.fstat(file).st_size, 8192)
                grow(file, 12288)
                self.assertEqual(os.fstat(file).st_size, 12288)

    def test_too_short_file_or_no_memory_is_an_error(self) -> None:
        with socket.socket() as other:
            for file in (self.file, other.fileno()):
                self.assertRaises(SharedMemoryError, mapped, file, 1)
        os.ftruncate(self.file, 4096)
        for size in (4097, 1 << 80, -1):
            self.assertRaises(SharedMemoryError, mapped, self.file, size)

    def test_python_without(self) -> None:
        """Python need not have the function of the C library: that of uv or conda may be built where there was none."""
        self.addCleanup(setattr, os, "memfd_create", os.memfd_create)
        del os.memfd_create
        file = make("test")
        self.addCleanup(os.close, file)
        os.ftruncate(file, 4096)
        self.assertRaises(PermissionError, os.ftruncate, file, 0)
        self.assertFalse(os.get_inheritable(file))
        for number in (errno.EMFILE, errno.ENOMEM):
            os.memfd_create = Mock(side_effect=OSError(number, "no"))
            self.assertRaises(OSError, make, "test")
        os.memfd_create = Mock(side_effect=OSError(errno.ENOSYS, "no"))
        os.close(make("test"))
        self.patch(sharedmemory, "sys", type("Other", (), {"platform": "other"}))
        file = make("test")  # file without a name where memory files are missing
        self.addCleanup(os.close, file)
        os.ftruncate(file, 4096)
        self.assertEqual(len(mapped(file, 4096)), 4096)
