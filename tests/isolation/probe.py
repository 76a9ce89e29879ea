"""Tries to reach places, all at once, and prints what came of each as JSON.

``python3 probe.py KIND:HOST:PORT...``; KIND is ``tcp`` or ``udp``. The result is the first bytes
that were received, ``open`` for a TCP connection on which nothing comes at once, or what was in
the way: ``refused``, ``no answer``, ``no such name``, ``unreachable``. Standard library only.
"""

import json
import socket
import sys
import threading

#: seconds; on one machine an answer takes a millisecond
PATIENCE = 2.0


def attempt(kind, host, port):
    wanted = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, wanted) as one:
        one.settimeout(PATIENCE)
        try:
            one.connect((host, int(port)))
        except socket.gaierror:
            return "no such name"
        except TimeoutError:
            return "no answer"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "unreachable"
        try:
            if kind == "udp":
                one.send(b"?")
            return one.recv(100).decode("utf-8", "replace") or "open"
        except TimeoutError:
            return "open" if kind == "tcp" else "no answer"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "open" if kind == "tcp" else "unreachable"


def main(places):
    results = {}

    def work(place):
        results[place] = attempt(*place.split(":"))

    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
