// The client of the interop cases in Node: @grpc/grpc-js as anybody would use it. It runs every case and prints a
// line of JSON for each: {"case", "error"}, the error empty if it passed.
//
//   node client.js DIRECTORY-OF-PACKAGES ADDRESS
"use strict";

const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const path = require("node:path");

const [packages, address] = process.argv.slice(2);
const load = createRequire(path.join(packages, "package.json"));
const grpc = load("@grpc/grpc-js");
const options = { defaults: true, keepCase: true };
const loaded = load("@grpc/proto-loader").loadSync(path.join(__dirname, "testing.proto"), options);
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(loaded).grpc.testing;

const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";
const REQUEST_SIZES = [27182, 8, 1828, 45904];
const REPLY_SIZES = [31415, 9, 2653, 58979];
const LARGE_REQUEST = 271828;
const LARGE_REPLY = 314159;
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
const GZIP = { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip };
const SOAKED = 20;

const connect = (Service, more = {}) =>
  new Service(address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1, ...more });
const client = connect(TestService);

const payload = (size) => ({ body: Buffer.alloc(size) });
const asking = (sizes, more = {}) => ({ response_parameters: sizes.map((size) => ({ size })), ...more });
const metadata = () => {
  const made = new grpc.Metadata();
  made.set(INITIAL, "test_initial_metadata_value");
  made.set(TRAILING, Buffer.from([10, 11, 10, 11, 10, 11]));
  return made;
};

// A call of one reply: what it gave or how it failed, and its metadata.
function one(on, method, request, sent = new grpc.Metadata()) {
  return new Promise((resolve) => {
    const found = {};
    const args = request === undefined ? [sent] : [request, sent];
    const call = on[method](...args, (error, reply) => Object.assign(found, { error, reply }));
    call.on("metadata", (initial) => (found.initial = initial));
    call.on("status", (status) => resolve(Object.assign(found, { status })));
    one.last = call; // for who has more to say on it
  });
}

// A call of many replies: how it went on and how it ended.
function follow(call) {
  const found = { messages: [], waiting: [] };
  call.on("metadata", (initial) => (found.initial = initial));
  call.on("data", (message) => (found.messages.push(message), found.waiting.shift()?.()));
  call.on("error", (error) => (found.error = error));
  found.ended = new Promise((resolve) => call.on("status", (status) => resolve((found.status = status))));
  found.next = () => Promise.race([new Promise((resolve) => found.waiting.push(resolve)), found.ended]);
  return found;
}

async function large(on) {
  const request = { response_size: LARGE_REPLY, payload: payload(LARGE_REQUEST) };
  const { error, reply } = await one(on, "UnaryCall", request);
  assert.equal(error, null);
  assert.equal(reply.payload.body.length, LARGE_REPLY);
}

async function requests(on) {
  const running = one(on, "StreamingInputCall");
  for (const size of REQUEST_SIZES) one.last.write({ payload: payload(size) });
  one.last.end();
  const { error, reply } = await running;
  assert.equal(error, null);
  assert.equal(reply.aggregated_payload_size, 74922);
}

async function replies(on) {
  const found = follow(on.StreamingOutputCall(asking(REPLY_SIZES)));
  assert.equal((await found.ended).code, 0);
  assert.deepEqual(found.messages.map((m) => m.payload.body.length), REPLY_SIZES);
}

function echoes({ initial, status }) {
  assert.deepEqual(initial.get(INITIAL), ["test_initial_metadata_value"]);
  assert.deepEqual(status.metadata.get(TRAILING), [Buffer.from([10, 11, 10, 11, 10, 11])]);
}

const cases = {
  async empty_unary() {
    assert.deepEqual((await one(client, "EmptyCall", {})).reply, {});
  },
  large_unary: () => large(client),
  client_streaming: () => requests(client),
  server_streaming: () => replies(client),
  async ping_pong() {
    const call = client.FullDuplexCall();
    const found = follow(call);
    for (const [index, size] of REQUEST_SIZES.entries()) {
      const next = found.next();
      call.write(asking([REPLY_SIZES[index]], { payload: payload(size) }));
      await next;
      assert.equal(found.messages.length, index + 1);
      assert.equal(found.messages[index].payload.body.length, REPLY_SIZES[index]);
    }
    call.end();
    assert.equal((await found.ended).code, 0);
  },
  async empty_stream() {
    const call = client.FullDuplexCall();
    const found = follow(call);
    call.end();
    assert.equal((await found.ended).code, 0);
    assert.equal(found.messages.length, 0);
  },
  async compressed_unary() {
    const on = connect(TestService, GZIP);
    await large(on);
    on.close();
  },
  async compressed_streaming() {
    const on = connect(TestService, GZIP);
    await requests(on);
    await replies(on);
    on.close();
  },
  async custom_metadata() {
    const request = { response_size: 1, payload: payload(1) };
    echoes(await one(client, "UnaryCall", request, metadata()));
    const call = client.FullDuplexCall(metadata());
    const found = follow(call);
    call.write(asking([1], { payload: payload(1) }));
    call.end();
    await found.ended;
    assert.equal(found.messages.length, 1);
    echoes(found);
  },
  async status_code_and_message() {
    const response_status = { code: 2, message: "test status message" };
    const { status } = await one(client, "UnaryCall", { response_status });
    const call = client.FullDuplexCall();
    const found = follow(call);
    call.write({ response_status });
    call.end();
    for (const { code, details } of [status, await found.ended])
      assert.deepEqual({ code, message: details }, response_status);
  },
  async special_status_message() {
    const { status } = await one(client, "UnaryCall", { response_status: { code: 2, message: SPECIAL } });
    assert.deepEqual([status.code, status.details], [2, SPECIAL]);
  },
  async unimplemented_method() {
    const { status } = await one(client, "UnimplementedCall", {});
    assert.equal(status.code, grpc.status.UNIMPLEMENTED);
  },
  async cancel_after_begin() {
    const running = one(client, "StreamingInputCall");
    one.last.cancel();
    assert.equal((await running).status.code, grpc.status.CANCELLED);
  },
  async cancel_after_first_response() {
    const call = client.FullDuplexCall();
    const found = follow(call);
    const next = found.next();
    call.write(asking([REPLY_SIZES[0]], { payload: payload(REQUEST_SIZES[0]) }));
    await next;
    assert.equal(found.messages.length, 1);
    call.cancel();
    assert.equal((await found.ended).code, grpc.status.CANCELLED);
  },
  async timeout_on_sleeping_server() {
    const call = client.FullDuplexCall({ deadline: Date.now() + 1 });
    const found = follow(call);
    call.write({ payload: payload(REQUEST_SIZES[0]) });
    assert.equal((await found.ended).code, grpc.status.DEADLINE_EXCEEDED);
  },
  async rpc_soak() {
    for (let turn = 0; turn < SOAKED; turn++) await large(client);
  },
  async unimplemented_service() {
    const on = connect(UnimplementedService);
    const { status } = await one(on, "UnimplementedCall", {});
    assert.equal(status.code, grpc.status.UNIMPLEMENTED, status.details);
    on.close();
  },
  async channel_soak() {
    for (let turn = 0; turn < SOAKED; turn++) {
      const on = connect(TestService);
      await large(on);
      on.close();
    }
  },
};

async function main() {
  for (const [name, run] of Object.entries(cases)) {
    const late = new Promise((_, reject) => setTimeout(reject, 20_000, new Error("not within 20 s")).unref());
    const error = await Promise.race([run(), late]).then(() => "", (failed) => String(failed.stack));
    console.log(JSON.stringify({ case: name, error: error.slice(0, 500) }));
  }
  process.exit();
}

main();
