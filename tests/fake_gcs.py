"""A small server that speaks as much of Google Cloud Storage as gcsfs and TensorStore ask for.

Objects are in memory. Conditions on generations hold as they do there, so that of several who
create an object one alone succeeds.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Refused(Exception):
    """The status of an answer that is no success."""


class Buckets:
    """What is stored, by bucket and name, with its generation."""

    def __init__(self, names):
        self.objects = {name: {} for name in names}
        self.forbidden = set()
        self.calls = []
        self._lock, self._number = threading.RLock(), itertools.count(1000)

    def files(self, bucket):
        """The content of all objects of a bucket, by name."""
        return {name: content for name, (content, _) in sorted(self.objects[bucket].items())}

    def of(self, bucket):
        if bucket in self.forbidden:
            raise Refused(403)
        if bucket not in self.objects:
            raise Refused(404)
        return self.objects[bucket]

    def get(self, bucket, name, query):
        with self._lock:
            found = self.of(bucket).get(name)
            if found is None:
                raise Refused(404)
            if query.get("generation", str(found[1])) != str(found[1]):
                raise Refused(404)
            if query.get("ifGenerationMatch", str(found[1])) != str(found[1]):
                raise Refused(412)
            if query.get("ifGenerationNotMatch") == str(found[1]):
                raise Refused(304)
            return found

    def put(self, bucket, name, content, query):
        with self._lock:
            objects = self.of(bucket)
            there = objects[name][1] if name in objects else 0
            if query.get("ifGenerationMatch", str(there)) != str(there):
                raise Refused(412)
            objects[name] = bytes(content), next(self._number)
            return self.told(bucket, name)

    def delete(self, bucket, name, query):
        with self._lock:
            self.get(bucket, name, query)
            del self.of(bucket)[name]

    def told(self, bucket, name):
        content, generation = self.of(bucket)[name]
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "bucket": bucket,
            "name": name,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def listed(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        with self._lock:
            found, prefixes = [], []
            for name in sorted(self.of(bucket)):
                inside = name.startswith(prefix) and name >= query.get("startOffset", "")
                if not inside or name >= query.get("endOffset", "\U0010ffff"):
                    continue
                head, mark, _ = name[len(prefix) :].partition(delimiter or "\0")
                if mark:
                    prefixes.append(prefix + head + mark)
                else:
                    found.append(self.told(bucket, name))
        answer = {"kind": "storage#objects"}
        if found:
            answer["items"] = found
        if prefixes:
            answer["prefixes"] = list(dict.fromkeys(prefixes))
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    buckets: Buckets
    sessions: dict

    def log_message(self, *_):
        pass

    def _serve(self):
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        self.buckets.calls.append((self.command, unquote(self.path)))
        try:
            self._answer(*self._done(address.path, query, body))
        except Refused as refused:
            message = json.dumps({"error": {"code": refused.args[0], "message": "refused"}})
            self._answer(refused.args[0], message.encode() if refused.args[0] != 304 else b"")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve

    def _chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _done(self, path, query, body):
        """Status, content and further headers of the answer."""
        if path == "/batch/storage/v1":
            return self._batch(body)
        if found := re.fullmatch(r"/session/(\w+)", path):
            return self._resumed(found[1], body)
        found = re.fullmatch(r"/(?:upload/|download/)?storage/v1/b/([^/]+)(.*)", path)
        if not found:
            raise Refused(404)
        bucket, rest = unquote(found[1]), found[2]
        if not rest:
            self.buckets.of(bucket)
            return _json({"kind": "storage#bucket", "name": bucket, "locationType": "region"})
        if path.startswith("/upload/"):
            return self._uploaded(bucket, query, body)
        if rest == "/o":
            return _json(self.buckets.listed(bucket, query))
        if found := re.fullmatch(r"/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", rest):
            name, other, target = map(unquote, found.groups())
            content, _ = self.buckets.get(bucket, name, {})
            told = self.buckets.put(other, target, content, query)
            return _json({"done": True, "resource": told})
        if found := re.fullmatch(r"/o/([^/]+)/moveTo/o/([^/]+)", rest):
            name, target = map(unquote, found.groups())
            content, _ = self.buckets.get(bucket, name, {})
            told = self.buckets.put(bucket, target, content, query)
            self.buckets.delete(bucket, name, {})
            return _json(told)
        name = unquote(rest.removeprefix("/o/"))
        if self.command == "DELETE":
            self.buckets.delete(bucket, name, query)
            return 204, b""
        content, generation = self.buckets.get(bucket, name, query)
        if query.get("alt") != "media":
            return _json(self.buckets.told(bucket, name))
        return self._media(content, generation)

    def _media(self, content, generation):
        headers = {"x-goog-generation": str(generation), "ETag": f'"{generation}"'}
        asked = re.fullmatch(r"bytes=(-?\d+)-?(\d*)", self.headers.get("Range") or "")
        if not asked or self.headers["Range"] == "bytes=0-":
            return 200, content, headers
        first, size = int(asked[1]), len(content)
        first = size + first if first < 0 else first
        last = min(int(asked[2]) if asked[2] else size - 1, size - 1)
        if first >= size:
            raise Refused(416)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, content[first : last + 1], headers

    def _uploaded(self, bucket, query, body):
        kind, name = query.get("uploadType"), query.get("name")
        if kind == "multipart":
            mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, head, content, _ = body.split(b"--" + mark, 3)
            name = json.loads(re.split(rb"\r?\n\r?\n", head, maxsplit=1)[1])["name"]
            body = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
            body = re.sub(rb"\r?\n\Z", b"", body)
        elif kind == "resumable":
            session = uuid.uuid4().hex
            name = name or json.loads(body)["name"]
            self.sessions[session] = bucket, name, query, bytearray()
            where = f"http://{self.headers['Host']}/session/{session}"
            return 200, b"{}", {"Location": where}
        return _json(self.buckets.put(bucket, name, body, query))

    def _resumed(self, session, body):
        if self.command == "DELETE":
            self.sessions.pop(session, None)
            return 499, b""
        bucket, name, query, content = self.sessions[session]
        content += body
        if self.headers["Content-Range"].endswith("/*"):
            return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"}
        return _json(self.buckets.put(bucket, name, content, query))

    def _batch(self, body):
        mark = self.headers["Content-Type"].partition("boundary=")[2].strip('"')
        parts = []
        for asked in re.findall(rb"DELETE (\S+) HTTP", body):
            found = re.search(r"/b/([^/]+)/o/([^/?]+)", asked.decode())
            try:
                self.buckets.delete(unquote(found[1]), unquote(found[2]), {})
                status = "204 No Content"
            except Refused as refused:
                status = f"{refused.args[0]} Refused"
            parts.append(
                f"--{mark}\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n"
            )
        text = "".join(parts) + f"--{mark}--"
        return 200, text.encode(), {"Content-Type": f"multipart/mixed; boundary={mark}"}

    def _answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content)


def _json(value):
    return 200, json.dumps(value).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Clients ask twice at once, and hang up when they have one of the answers."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def served(*names):
    """Yields buckets, and the variables of the environment that lead programs to them."""
    buckets = Buckets(names)
    handler = type("Handler", (_Handler,), {"buckets": buckets, "sessions": {}})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    where = f"http://127.0.0.1:{server.server_port}"
    try:
        yield (
            buckets,
            {
                "STORAGE_EMULATOR_HOST": where,
                "TENSORSTORE_GCS_HTTP_URL": where,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
                "EPATH_USE_TF": "false",
                # It would ask Google for the kind of a bucket.
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
