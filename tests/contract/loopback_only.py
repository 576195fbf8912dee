"""Runs a command in a network namespace that has nothing but loopback: python loopback_only.py COMMAND...

Start it under `unshare --net --map-root-user`.
"""

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914  # netdevice(7)
IFF_UP, IFF_RUNNING = 0x1, 0x40

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP | IFF_RUNNING))
os.execvp(sys.argv[1], sys.argv[1:])
