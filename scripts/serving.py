"""A server for a measurement: started, and waited for until it answers."""

import subprocess
import sys
import time
import urllib.request


def launch(command, ops):
    """The process of `command`, once the server behind it is ready by its ops address; ends the script where it never is."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            if urllib.request.urlopen(f"http://{ops}/readyz", timeout=5).status == 200:
                return server
        except OSError:
            pass
        if server.poll() is not None:
            sys.exit("the server ended while it started")
        time.sleep(0.5)
    sys.exit("the server is not ready after five minutes")
