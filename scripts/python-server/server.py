"""The embedding server that one would write in Python: grpcio, ONNX Runtime, Hugging Face's tokenizers, Pillow.

    python scripts/python-server/server.py --listen 127.0.0.1:7000 --models target/bench-python-server \
        --tokenizer target/weights/minilm/tokenizer.json --images lite0 --threads 2 --workers 8

It answers EmbedText and EmbedImage of our own protos, so that one load tool asks both. ONNX Runtime lets go of Python's lock while it
computes; a worker of the pool takes a call from its bytes to its reply.
"""

import argparse
import io
import pathlib
import sys
from concurrent import futures

import grpc
import numpy
import onnxruntime
import tokenizers
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/foreign/python"))
import stubs

TOKENS = 256
# What a picture is scaled to before its centre is cut out, what the network reads, and how it is scaled.
PICTURES = {"lite0": (256, 224, Image.BICUBIC), "sample": (48, 48, Image.BILINEAR)}


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def unit(vectors):
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def embedding(vector):
    packed = vector.astype("<f4").tobytes()
    return stubs.embedding.Embedding(shared=stubs.common.Vector(dimension=len(vector), packed_f32=packed))


class Embeddings(stubs.embedding_grpc.EmbeddingServiceServicer):
    def __init__(self, models, tokenizer, images, threads):
        self.text = session(models / "minilm.onnx", threads)
        self.image = session(models / f"{images}.onnx", threads)
        self.shorter, self.side, self.filter = PICTURES[images]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(TOKENS)
        self.tokenizer.no_padding()

    def EmbedText(self, request, context):
        ids = numpy.array([self.tokenizer.encode(request.text).ids])
        (vectors,) = self.text.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
        return stubs.embedding.EmbedTextResponse(embedding=embedding(unit(vectors)[0]))

    def EmbedImage(self, request, context):
        picture = Image.open(io.BytesIO(request.image)).convert("RGB")
        picture = picture.resize([self.shorter * side // min(picture.size) for side in picture.size], self.filter)
        left, top = (picture.width - self.side) // 2, (picture.height - self.side) // 2
        picture = picture.crop((left, top, left + self.side, top + self.side))
        pixels = numpy.asarray(picture, dtype=numpy.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        (vectors,) = self.image.run(None, {"pixels": numpy.ascontiguousarray(pixels)})
        return stubs.embedding.EmbedImageResponse(embedding=embedding(unit(vectors)[0]))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--listen", required=True)
    arguments.add_argument("--models", type=pathlib.Path, required=True)
    arguments.add_argument("--tokenizer", type=pathlib.Path, required=True)
    arguments.add_argument("--images", choices=PICTURES, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--workers", type=int, required=True)
    arguments = arguments.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(arguments.workers))
    servicer = Embeddings(arguments.models, arguments.tokenizer, arguments.images, arguments.threads)
    stubs.embedding_grpc.add_EmbeddingServiceServicer_to_server(servicer, server)
    server.add_insecure_port(arguments.listen)
    server.start()
    server.wait_for_termination()


main()
