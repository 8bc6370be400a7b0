# What ssh does, with paramiko: paramiko_client.py HOST PORT KEY COMMAND
import sys
import threading

import paramiko

host, port, key, command = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(
    host, int(port), "signer", pkey=paramiko.Ed25519Key(filename=key),
    look_for_keys=False, allow_agent=False, timeout=20,
)
channel = client.get_transport().open_session()
channel.exec_command(command)


def pump():
    for chunk in iter(lambda: sys.stdin.buffer.read(32768), b""):
        channel.sendall(chunk)
    channel.shutdown_write()


def errors():
    for chunk in iter(lambda: channel.recv_stderr(32768), b""):
        sys.stderr.buffer.write(chunk)


threads = [threading.Thread(target=pump, daemon=True), threading.Thread(target=errors, daemon=True)]
for thread in threads:
    thread.start()
for chunk in iter(lambda: channel.recv(32768), b""):
    sys.stdout.buffer.write(chunk)
for thread in threads:
    thread.join(20)
sys.stdout.flush()
sys.stderr.flush()
status = channel.recv_exit_status()
client.close()
sys.exit(status)
