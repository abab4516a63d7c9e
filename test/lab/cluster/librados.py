# A librados client on a pipe: one JSON request a line, one JSON answer a line.
import sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
import base64
import json
import rados

conf = sys.argv[1]
cluster = None


def answer(request):
    if "pool" in request:
        # Answered only once the object's placement group serves, so that nothing that follows has to wait.
        with cluster.open_ioctx(request["pool"]) as pool:
            try:
                pool.stat("any")
            except rados.ObjectNotFound:
                pass
        return 0, b"", ""
    return cluster.mon_command(json.dumps(request["command"]), b"")


for line in sys.stdin:
    try:
        if cluster is None:
            cluster = rados.Rados(conffile=conf, name="client.admin", conf={"rados_mon_op_timeout": "30", "rados_osd_op_timeout": "30"})
            cluster.connect(timeout=30)
        code, out, status = answer(json.loads(line))
    except rados.Error as e:
        cluster = cluster if cluster is not None and cluster.state == "connected" else None
        code, out, status = -(getattr(e, "errno", None) or 5), b"", str(e)
    print(json.dumps({"code": code, "out": base64.b64encode(out or b"").decode(), "status": status or ""}), flush=True)
