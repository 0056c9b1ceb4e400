"""Passes its input to a TCP port of this machine, and what comes from there to its output.

Usage: pass.py PORT. Ends when either side does.
"""

import os
import socket
import sys
import threading


def main():
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))

    def back():
        while data := server.recv(4096):
            os.write(1, data)
        os._exit(0)

    threading.Thread(target=back, daemon=True).start()
    while data := os.read(0, 4096):
        server.sendall(data)


main()
