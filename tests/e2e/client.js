// A client in another language: @grpc/grpc-js as anybody would use it, and inventory's proto. It makes calls of
// all four kinds to ADDRESS and prints what came of them as one line of JSON.
//
//   node client.js ADDRESS DIRECTORY-OF-PACKAGES PROTO [DESTINATION for mesh-to]
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");

const [address, packages, proto, destination] = process.argv.slice(2);
const load = createRequire(path.join(packages, "package.json"));
const grpc = load("@grpc/grpc-js");
const loaded = load("@grpc/proto-loader").loadSync(proto, { defaults: true, longs: String });
const { Inventory } = grpc.loadPackageDefinition(loaded).shop.v1;

const inventory = new Inventory(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
if (destination) metadata.set("mesh-to", destination);
const options = () => ({ deadline: Date.now() + 10_000 });

function one(method, request) {
  return new Promise((resolve) => {
    const done = (error, reply) => resolve({ error, reply });
    const call = inventory[method](...(request ? [request] : []), metadata, options(), done);
    if (!request) {
      for (const item of ["poster", "poster"]) call.write({ item, quantity: 1 });
      call.end();
    }
  });
}

function many(call) {
  return new Promise((resolve, reject) => {
    const found = { messages: [] };
    call.on("metadata", (initial) => (found.initial = initial.getMap()));
    call.on("data", (message) => found.messages.push(message));
    call.on("error", reject);
    call.on("status", (status) => resolve({ ...found, code: status.code }));
  });
}

async function main() {
  const reserved = await one("Reserve", { item: "mug", quantity: 2 });
  const { error } = await one("Reserve", { item: "poster", quantity: 9 });
  const levels = await many(inventory.Levels({}, metadata, options()));
  const restocked = await one("Restock");
  const dialogue = inventory.Check(metadata, options());
  for (const item of ["mug", "unicorn"]) dialogue.write({ item });
  dialogue.end();
  const checked = await many(dialogue);
  const pairs = ({ messages }) => messages.map(({ item, left }) => [item, left]);
  console.log(
    JSON.stringify({
      reserved: reserved.reply,
      code: error.code,
      text: error.details,
      left: error.metadata.get("x-left")[0],
      details: error.metadata.get("grpc-status-details-bin")[0].toString("base64"),
      levels: pairs(levels),
      asked_by: levels.initial["x-asked-by"],
      restocked: restocked.reply.deliveries,
      checked: pairs(checked),
    }),
  );
  inventory.close();
}

main();
