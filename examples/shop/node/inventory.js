// inventory, in JavaScript: an ordinary gRPC service that knows nothing of the mesh. Its sidecar calls it at
// --listen, and it calls orders at --orders: the socket that its sidecar opens, in the directory that
// `mesh run` names.
//
//   mesh run --service inventory --app-port 9000 -- node inventory.js --listen 127.0.0.1:9000
"use strict";

const path = require("node:path");
const { parseArgs } = require("node:util");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PRICES = { mug: 900, poster: 1500, piano: 900_000 };
const DOMAIN = "shop.example";

const left = new Map([["mug", 20], ["poster", 5], ["piano", 1]]);
let reserved = 0;
let orders;

// google.rpc.Status and ErrorInfo, as far as a refusal needs them: code, message, one detail of type ErrorInfo.
function details(code, reason, text) {
  const info = Buffer.concat([field(1, Buffer.from(reason)), field(2, Buffer.from(DOMAIN))]);
  const type = Buffer.from("type.googleapis.com/google.rpc.ErrorInfo");
  const detail = Buffer.concat([field(1, type), field(2, info)]);
  return Buffer.concat([Buffer.from([0x08, code]), field(2, Buffer.from(text)), field(3, detail)]);
}

// A length-delimited protobuf field; everything here is shorter than 16 KiB.
function field(number, bytes) {
  const length = bytes.length < 0x80 ? [bytes.length] : [(bytes.length & 0x7f) | 0x80, bytes.length >> 7];
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes]);
}

function refusal(code, reason, text, trailing = {}) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(trailing)) metadata.set(key, value);
  metadata.set("grpc-status-details-bin", details(code, reason, text));
  return { code, details: text, metadata };
}

function reserve(call, answer) {
  const { item, quantity } = call.request;
  const held = left.get(item) ?? 0;
  if (held < quantity) {
    const text = `${held} of '${item}' left: order fewer`;
    return answer(refusal(grpc.status.RESOURCE_EXHAUSTED, "OUT_OF_STOCK", text, { "x-left": `${held}` }));
  }
  left.set(item, held - quantity);
  reserved += quantity;
  answer(null, { cents: PRICES[item] * quantity, left: left.get(item) });
}

function levels(call) {
  const metadata = new grpc.Metadata();
  // The sidecar has verified who calls, and nobody but the sidecar can say it.
  metadata.set("x-asked-by", call.metadata.get("mesh-peer")[0] ?? "");
  call.sendMetadata(metadata);
  for (const item of [...left.keys()].sort()) call.write({ item, left: left.get(item) });
  call.end();
}

function restock(call, answer) {
  const deliveries = [];
  call.on("data", (delivery) => deliveries.push(delivery));
  call.on("end", () => {
    for (const { item, quantity } of deliveries) left.set(item, (left.get(item) ?? 0) + quantity);
    answer(null, { deliveries: deliveries.length });
  });
}

function check(call) {
  call.on("data", ({ item }) => call.write({ item, left: left.get(item) ?? 0 }));
  call.on("end", () => call.end());
}

function reconcile(call, answer) {
  let sold = 0;
  const listed = orders.List({});
  listed.on("data", ({ quantity }) => (sold += quantity));
  listed.on("error", answer);
  listed.on("end", () => answer(null, { sold, reserved }));
}

function load(name) {
  const file = path.join(__dirname, "..", "v1", `${name}.proto`);
  return grpc.loadPackageDefinition(loader.loadSync(file, { defaults: true, longs: Number })).shop.v1;
}

function main() {
  const socket = `unix:${process.env.MESH_RUN_DIR ?? "."}/orders.sock`;
  const options = { listen: { type: "string" }, orders: { type: "string", default: socket } };
  const { values } = parseArgs({ options });
  const insecure = grpc.credentials.createInsecure();
  orders = new (load("orders").Orders)(values.orders, insecure);
  const server = new grpc.Server();
  server.addService(load("inventory").Inventory.service, {
    Reserve: reserve,
    Levels: levels,
    Restock: restock,
    Check: check,
    Reconcile: reconcile,
  });
  server.bindAsync(values.listen, grpc.ServerCredentials.createInsecure(), (error) => {
    if (!error) return;
    console.error(`inventory: cannot listen on ${values.listen}: ${error.message}`);
    process.exit(1);
  });
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.on(signal, () => {
      server.forceShutdown();
      orders.close();
    });
  }
}

main();
