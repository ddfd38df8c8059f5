"""A Google Cloud Storage on loopback: `python gcs_emulator.py PORT BUCKET`.

It is gcp-storage-emulator with two things that GCS does and that one does not: preconditions on an
object's generation (a lock needs them) and the generation in the answer (TensorStore needs it).
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator import server


def conditional(handler):
    def handle(request, response, storage, *args):
        data = request.data if isinstance(request.data, dict) else {}
        meta = data.get("meta", data)
        name = request.params.get("object_id") or request.query.get("name", [meta.get("name")])[0]
        objects = storage.objects.get(request.params.get("bucket_name"), {})
        generation = objects.get(name, {}).get("generation", "0")
        if generation != request.query.get("ifGenerationMatch", [generation])[0]:
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif generation == request.query.get("ifGenerationNotMatch", [None])[0]:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            response["x-goog-generation"] = generation
            handler(request, response, storage, *args)

    return handle


def serve(port: int, bucket: str) -> None:
    for path, handlers in server.HANDLERS:
        if "/b/" in path:
            handlers.update({method: conditional(f) for method, f in handlers.items()})
    server.create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
