"""Python's standard library and nothing else."""
import json
import socket
import sys


class Refused(Exception):
    pass


def main(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    lines = sock.makefile("rw", encoding="utf-8", newline="\n")
    count = 0

    def call(method, **params):
        nonlocal count
        count += 1
        lines.write(json.dumps({"jsonrpc": "2.0", "id": count, "method": method, "params": params}) + "\n")
        lines.flush()
        reply = json.loads(lines.readline())
        assert reply["id"] == count, reply
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["result"]

    state = {"turn": 3, "text": "zwölf \U0001f600", "big": 10**40, "list": [1, 2.5, None]}
    session = call("session.create", name="python")["id"]
    made = call("checkpoint.create", session_id=session, message="one", state=state)
    listed = call("checkpoint.list", session_id=session)["checkpoints"]
    assert [c["id"] for c in listed] == [made["checkpoint_id"]], listed
    back = call("checkpoint.restore", session_id=session, checkpoint_id=made["checkpoint_id"])
    assert back["state"] == state, back
    try:
        call("checkpoint.get", checkpoint_id=session)
    except Refused as refused:
        assert refused.args[0]["code"] == -32001, refused
    else:
        raise AssertionError("no error for an unknown checkpoint")
    print("ok")


main(sys.argv[1])
