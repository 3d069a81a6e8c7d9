// Search, streams and errors with @grpc/grpc-js: a client of Diptych that has nothing of ours but the proto files.
//
//     node tests/foreign/node/main.cjs HOST:PORT
//
// Prints one JSON object. The packages of package-lock.json lie where NODE_PATH says. What is asked is what
// tests/foreign/python/cases.py asks; tests/tests/it/foreign.rs says what must come out.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const PROTOS = path.resolve(__dirname, "../../../proto/proto");
const TEXT = "red heart";
const GROUPS = 5;
const TOO_LARGE = "a".repeat(17 << 20);
const CALLS = 32;
const ROUNDS = 20;

// The messages of google.rpc that errors carry; no package that grpc-js needs has them.
const RPC = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

const codeName = (code) => Object.keys(grpc.status).find((name) => grpc.status[name] === code);

// What a status says about itself; `details` are of google.protobuf.Any, whose name differs from the field on the wire.
function ofStatus({ code, message, details }) {
  const told = { code: codeName(code), message };
  for (const { type_url: url, value } of details) {
    const name = url.split("/").pop();
    const known = ["ErrorInfo", "BadRequest", "RetryInfo"].find((known) => name === `google.rpc.${known}`);
    if (!known) continue;
    const detail = RPC.lookupType(name).decode(value);
    if (known === "ErrorInfo") {
      Object.assign(told, { reason: detail.reason, domain: detail.domain, metadata: detail.metadata });
    } else if (known === "BadRequest") {
      told.fields = detail.field_violations.map((violation) => violation.field);
      told.descriptions = detail.field_violations.map((violation) => violation.description);
    } else {
      const { seconds, nanos } = detail.retry_delay;
      told.retry_ms = Number(seconds) * 1000 + Math.round(nanos / 1e6);
    }
  }
  return told;
}

function ofError(error) {
  const [data] = error.metadata ? error.metadata.get("grpc-status-details-bin") : [];
  const told = data ? ofStatus(RPC.lookupType("google.rpc.Status").decode(data)) : {};
  return { ...told, code: codeName(error.code), same_code: told.code === codeName(error.code) };
}

function unary(client, method, request, options = {}) {
  return new Promise((resolve, reject) => {
    client[method](request, new grpc.Metadata(), options, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

async function refusal(call) {
  try {
    await call;
  } catch (error) {
    return ofError(error);
  }
  return { code: "OK" };
}

function answers(stream) {
  return new Promise((resolve, reject) => {
    const found = [];
    stream.on("data", (answer) => found.push(answer));
    stream.on("end", () => resolve(found));
    stream.on("error", reject);
  });
}

const search = () => ({ collection: "emoji", text: TEXT, limit: GROUPS, one_per_group: true });

function searches() {
  const one = { collection: "emoji", terms: [{ text: TEXT }], target: "MODALITY_IMAGE", limit: GROUPS };
  return { searches: [one, { ...one, target: "MODALITY_UNSPECIFIED" }, one] };
}

function inputs(picture) {
  const all = [{ text: TEXT }, { image: Buffer.from("no picture") }, { image: picture }, { text: "ein rotes Herz" }];
  return all.map((input, sequence) => ({ sequence, input }));
}

// 64 pictures that no other call has: what follows a picture's end is passed over, but makes it another input.
function heavy(picture, number) {
  const tail = (place) => Buffer.from([number >> 24, number >> 16, number >> 8, number, place].map((byte) => byte & 255));
  return { inputs: Array.from({ length: 64 }, (_, place) => ({ image: Buffer.concat([picture, tail(place)]) })) };
}

const groups = (reply) => reply.hits.map((hit) => hit.group);

function told(found, key, value) {
  const entries = found.map((answer) => [answer[key], answer.status ? ofStatus(answer.status) : value(answer)]);
  return Object.fromEntries(entries);
}

async function stream(client, all) {
  const call = client.EmbedStream();
  const found = answers(call);
  all.forEach((input) => call.write(input));
  call.end();
  return told(await found, "sequence", (answer) => answer.embedding.shared.dimension);
}

// A stream that is left after its first answer, while more could be sent.
function cancelled(client, first) {
  return new Promise((resolve) => {
    const call = client.EmbedStream();
    call.on("data", () => call.cancel());
    call.on("error", (error) => resolve(ofError(error)));
    call.on("end", () => {});
    call.write(first);
  });
}

async function busy(client, picture) {
  for (let turn = 0; turn < ROUNDS; turn += 1) {
    const numbers = Array.from({ length: CALLS }, (_, place) => turn * CALLS + place);
    const calls = numbers.map((number) => refusal(unary(client, "BatchEmbed", heavy(picture, number))));
    const refused = (await Promise.all(calls)).find((answer) => answer.code !== "OK");
    if (refused) return refused;
  }
  return { code: "OK" };
}

async function main(address) {
  const folder = path.join(PROTOS, "diptych/v1");
  const files = fs.readdirSync(folder).map((name) => path.join(folder, name));
  const shapes = { includeDirs: [PROTOS], keepCase: true, enums: String, longs: Number, defaults: true };
  const { v1 } = grpc.loadPackageDefinition(loader.loadSync(files, shapes)).diptych;
  const of = (name) => new v1[`${name}Service`](address, grpc.credentials.createInsecure());
  const [searching, embedding, items] = ["Search", "Embedding", "Item"].map(of);
  const asIs = (bytes) => bytes;
  const missing = () => new Promise((resolve, reject) => {
    const done = (error, reply) => (error ? reject(error) : resolve(reply));
    searching.makeUnaryRequest("/diptych.v1.SearchService/Missing", asIs, asIs, Buffer.alloc(0), done);
  });
  const listing = { collection: "emoji", group: "2764", modality: "MODALITY_IMAGE", page_size: 1 };
  const listed = await unary(items, "ListItems", { ...listing, read_mask: { paths: ["source"] } });
  const picture = listed.items[0].source.image;
  const soon = { deadline: Date.now() + 1 };
  const report = {
    search: groups(await unary(searching, "SearchTextToImage", search())),
    batch_search: told(
      await answers(searching.BatchSearch(searches())), "index", (answer) => answer.response.hits.length),
    embed_stream: await stream(embedding, inputs(picture)),
    wrong: await refusal(unary(searching, "SearchTextToImage", { ...search(), limit: 100_000 })),
    missing: await refusal(missing()),
    too_large: await refusal(unary(embedding, "EmbedText", { text: TOO_LARGE })),
    late: await refusal(unary(embedding, "BatchEmbed", heavy(picture, 9_997), soon)),
    cancelled: await cancelled(embedding, inputs(picture)[0]),
    busy: await busy(embedding, picture),
    after: groups(await unary(searching, "SearchTextToImage", search())),
  };
  [searching, embedding, items].forEach((client) => client.close());
  return report;
}

main(process.argv[2]).then(
  (report) => console.log(JSON.stringify(report)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
