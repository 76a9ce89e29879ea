"""Stands for any service: answers each TCP connection and each UDP packet with its name.

``python3 echo.py NAME PORT...``. Runs with the standard library, also from ``python3 -c``.
"""

import socket
import sys
import threading

IP_PKTINFO = 8  # Linux; the socket module has no name for it


def tcp(listener, name):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(name)


def udp(listener, name):
    # Answers from the address that was asked: a machine with several would take another.
    listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    while True:
        _, extra, _, sender = listener.recvmsg(100, 100)
        (asked,) = (data[8:12] for _, kind, data in extra if kind == IP_PKTINFO)
        origin = bytes(4) + asked + bytes(4)
        listener.sendmsg([name], [(socket.IPPROTO_IP, IP_PKTINFO, origin)], 0, sender)


def main(name, ports):
    for port in ports:
        for kind, serve in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
            listener = socket.socket(socket.AF_INET, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", int(port)))
            if kind == socket.SOCK_STREAM:
                listener.listen(100)
            threading.Thread(target=serve, args=(listener, name.encode())).start()
    print("ready", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
