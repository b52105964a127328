// The server of the interop cases in Node: @grpc/grpc-js as anybody would use it.
//
//   node server.js DIRECTORY-OF-PACKAGES PORT
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");

const [packages, port] = process.argv.slice(2);
const load = createRequire(path.join(packages, "package.json"));
const grpc = load("@grpc/grpc-js");
const options = { defaults: true, keepCase: true };
const loaded = load("@grpc/proto-loader").loadSync(path.join(__dirname, "testing.proto"), options);
const { TestService } = grpc.loadPackageDefinition(loaded).grpc.testing;

const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";
const payload = (size) => ({ body: Buffer.alloc(size) });

function echoed(call) {
  const trailing = new grpc.Metadata();
  const initial = new grpc.Metadata();
  for (const value of call.metadata.get(INITIAL)) initial.add(INITIAL, value);
  for (const value of call.metadata.get(TRAILING)) trailing.add(TRAILING, value);
  if (call.metadata.get(INITIAL).length) call.sendMetadata(initial);
  return trailing;
}

function error({ code, message }, metadata) {
  return Object.assign(new Error(message), { code, details: message, metadata });
}

const pause = (microseconds) => new Promise((resolve) => setTimeout(resolve, microseconds / 1000));

async function answer(call, { response_parameters: wanted }) {
  for (const { size, interval_us } of wanted) {
    if (interval_us) await pause(interval_us);
    call.write({ payload: payload(size) });
  }
}

function duplex(call) {
  const trailing = echoed(call);
  let turn = Promise.resolve();
  let failed = false;
  async function handle(request) {
    if (failed) return;
    failed = Boolean(request.response_status?.code);
    if (failed) call.emit("error", error(request.response_status, trailing));
    else await answer(call, request);
  }
  call.on("data", (request) => (turn = turn.then(() => handle(request))));
  call.on("end", () => (turn = turn.then(() => failed || call.end(trailing))));
}

const service = {
  EmptyCall: (call, done) => done(null, {}),
  UnaryCall(call, done) {
    const trailing = echoed(call);
    const { response_status: status, response_size: size } = call.request;
    if (status?.code) done(error(status, trailing));
    else done(null, { payload: payload(size) }, trailing);
  },
  async StreamingOutputCall(call) {
    await answer(call, call.request);
    call.end();
  },
  StreamingInputCall(call, done) {
    let size = 0;
    call.on("data", (request) => (size += request.payload.body.length));
    call.on("end", () => done(null, { aggregated_payload_size: size }));
  },
  FullDuplexCall: duplex,
};

const server = new grpc.Server();
const { UnimplementedCall, ...served } = TestService.service;
server.addService(served, service);
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (failed) => {
  if (failed) throw failed;
});
