"""Python stubs of the published protos, made by stock grpcio-tools into a folder that ends with the program."""

import importlib
import pathlib
import sys
import tempfile

import grpc_tools
from google.protobuf import field_mask_pb2
from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parents[3] / "proto" / "proto"
# Where grpcio-tools keeps google/protobuf/*.proto.
WELL_KNOWN = pathlib.Path(grpc_tools.__file__).parent / "_proto"
FOLDER = tempfile.TemporaryDirectory(prefix="diptych-stubs-")


def generate():
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    arguments = ["protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN}"]
    arguments += [f"--python_out={FOLDER.name}", f"--grpc_python_out={FOLDER.name}", *files]
    if protoc.main(arguments) != 0:
        raise SystemExit("the stubs cannot be generated")
    sys.path.insert(0, FOLDER.name)


def of(name):
    """Messages and service stubs of one proto file."""
    return (
        importlib.import_module(f"diptych.v1.{name}_pb2"),
        importlib.import_module(f"diptych.v1.{name}_pb2_grpc"),
    )


def mask(*paths):
    return field_mask_pb2.FieldMask(paths=paths)


generate()
common, _ = of("common")
search, search_grpc = of("search_service")
item, item_grpc = of("item_service")
collection, collection_grpc = of("collection_service")
embedding, embedding_grpc = of("embedding_service")
info, info_grpc = of("info_service")
